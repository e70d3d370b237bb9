import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Client, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { Filesystem } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import {
  type ConnectResponse,
  Process,
  type ProcessEvent_EndEvent,
  type StartResponse,
} from '@wrenn/protocol/gen/process/process_pb';
import { type EnvdOptions, startEnvd } from '../start-envd.ts';

export interface TestEnvd extends AsyncDisposable {
  readonly url: string;
  /** An empty directory that goes with the envd. */
  readonly directory: string;
  readonly process: Client<typeof Process>;
  readonly files: Client<typeof Filesystem>;
  init(body: unknown, token?: string): Promise<Response>;
}

/** An envd in this process on a free port, as on a developer's machine: it changes nothing of this machine. */
export async function startTestEnvd(options: Partial<EnvdOptions> = {}): Promise<TestEnvd> {
  const directory = await mkdtemp(join(tmpdir(), 'wrenn-envd-test-'));
  const envd = await startEnvd({ host: '127.0.0.1', port: 0, guest: false, ...options });
  const url = `http://127.0.0.1:${envd.port}`;
  return {
    url,
    directory,
    ...createClients(url),
    init: (body, token) =>
      fetch(`${url}/init`, {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { 'Content-Type': 'application/json', ...(token === undefined ? {} : { 'X-Access-Token': token }) },
      }),
    [Symbol.asyncDispose]: async () => {
      await envd.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

export type Protocol = 'connect-json' | 'connect-binary' | 'grpc-web';

export function createClients(
  url: string,
  protocol: Protocol = 'connect-binary',
): { process: Client<typeof Process>; files: Client<typeof Filesystem> } {
  const options = { baseUrl: url, httpVersion: '1.1' } as const;
  const transport =
    protocol === 'grpc-web'
      ? createGrpcWebTransport(options)
      : createConnectTransport({ ...options, useBinaryFormat: protocol === 'connect-binary' });
  return { process: createClient(Process, transport), files: createClient(Filesystem, transport) };
}

/** What a stream of process events told. */
export interface ProcessReport {
  pid: number;
  /** Offset of the start event. */
  offset: number;
  stdout: string;
  stderr: string;
  pty: string;
  /** Offsets of the chunks followed each other without a gap. */
  contiguous: boolean;
  outputBytes: number;
  end: ProcessEvent_EndEvent | undefined;
}

type ProcessStream = AsyncIterable<StartResponse | ConnectResponse>;

/** Reads a stream of process events to its end. */
export async function readProcess(stream: ProcessStream): Promise<ProcessReport> {
  const report: ProcessReport = {
    pid: 0,
    offset: 0,
    stdout: '',
    stderr: '',
    pty: '',
    contiguous: true,
    outputBytes: 0,
    end: undefined,
  };
  const parts = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[], pty: [] as Uint8Array[] };
  let next = 0;
  for await (const { event } of stream) {
    switch (event?.event.case) {
      case 'start':
        report.pid = event.event.value.pid;
        report.offset = Number(event.event.value.offset);
        next = report.offset;
        break;
      case 'data': {
        const { output, offset } = event.event.value;
        if (output.case === undefined) throw new Error('a data event without data');
        report.contiguous &&= Number(offset) === next;
        next = Number(offset) + output.value.length;
        report.outputBytes += output.value.length;
        parts[output.case].push(output.value);
        break;
      }
      case 'end':
        if (report.end) throw new Error('a second end event');
        report.end = event.event.value;
        break;
    }
  }
  report.stdout = Buffer.concat(parts.stdout).toString();
  report.stderr = Buffer.concat(parts.stderr).toString();
  report.pty = Buffer.concat(parts.pty).toString();
  return report;
}

/** A request that starts a shell command. */
export function shell(command: string) {
  return { process: { cmd: '/bin/sh', args: ['-c', command] } };
}

export function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
