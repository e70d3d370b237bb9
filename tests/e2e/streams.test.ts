import { PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { createApiClient } from '@wrenn/cli/api/client';
import { execStreaming } from '@wrenn/cli/api/exec-stream';
import { openPty } from '@wrenn/cli/api/pty';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Platform, startPlatform } from './support/platform.ts';

const GUEST_MS = 60_000;
const TEST_MS = 600_000;

let platform: Platform;
let id: string;
const sockets = new Set<WebSocket>();
const { emit } = WebSocket.prototype;

beforeAll(async () => {
  // The sockets of the client, which a test cannot reach otherwise.
  WebSocket.prototype.emit = function (this: WebSocket, event: string | symbol, ...args: unknown[]): boolean {
    if (event === 'open') sockets.add(this);
    if (event === 'close') sockets.delete(this);
    return emit.call(this, event, ...args);
  };
  platform = await startPlatform();
  const { status, body } = await platform.call('POST', '/v1/capsules', {});
  expect(status, JSON.stringify(body)).toBe(201);
  ({ id } = body as { id: string });
}, TEST_MS);

afterAll(async () => {
  WebSocket.prototype.emit = emit;
  await platform?.[Symbol.asyncDispose]();
});

/** Each once, in this order. */
const DISTURBANCES: readonly [string, () => Promise<void>][] = [
  [
    'the socket is cut',
    async () => {
      for (const socket of sockets) socket.terminate();
    },
  ],
  [
    'the control plane is killed',
    async () => {
      await platform.controlPlane.end('SIGKILL');
      platform.controlPlane.start();
      await platform.ready();
    },
  ],
  [
    'the agent is killed',
    async () => {
      await platform.agent.end('SIGKILL');
      platform.agent.start();
      await platform.ready();
    },
  ],
  [
    'the capsule sleeps',
    async () => {
      await until('its host is known to be back', GUEST_MS, async () => (await status()) === 'running');
      expect(await platform.call('POST', `/v1/capsules/${id}/pause`)).toMatchObject({ status: 200 });
      expect(await status()).toBe('paused');
      expect(await platform.call('POST', `/v1/capsules/${id}/resume`)).toMatchObject({ status: 200 });
    },
  ],
];

async function status(): Promise<string> {
  return ((await platform.call('GET', `/v1/capsules/${id}`)).body as { status: string }).status;
}

/** Writes a numbered line to each output in turn until the file appears, then says how many there were, and ends with 7. */
const STOP = '/tmp/stop';
const WRITER = `
import os, sys, time
i = 0
while not os.path.exists("${STOP}"):
    (sys.stderr if i % 3 == 0 else sys.stdout).buffer.write(f"{i} {'x' * (i * 7919 % 300)}\\n".encode())
    sys.stdout.buffer.flush(); sys.stderr.buffer.flush()
    i += 1
    time.sleep(0.005)
os.remove("${STOP}")
sys.exit(7)
`;

function checkLines(stdout: string, stderr: string): number {
  const count = stdout.split('\n').length + stderr.split('\n').length - 2;
  const lines = Array.from({ length: count }, (_, i) => [i, `${i} ${'x'.repeat((i * 7919) % 300)}\n`] as const);
  const expected = (isStderr: boolean) => lines.flatMap(([i, line]) => ((i % 3 === 0) === isStderr ? [line] : []));
  // Not `toBe`, whose report of a difference would be megabytes.
  expect(stdout === expected(false).join('')).toBe(true);
  expect(stderr === expected(true).join('')).toBe(true);
  return count;
}

describe('a stream goes on, byte for byte,', () => {
  it(
    'of a command, when its socket, the control plane, the agent and the capsule go',
    async () => {
      const api = createApiClient({ baseUrl: platform.baseUrl, credential: platform.apiKey });
      const [stdout, stderr] = [new PassThrough(), new PassThrough()];
      const [out, err] = [buffer(stdout), buffer(stderr)];
      const notices: string[] = [];
      let bytes = 0;
      stdout.on('data', (data: Buffer) => {
        bytes += data.length;
      });
      const running = execStreaming(
        api,
        id,
        { cmd: 'python3', args: ['-c', WRITER], stdout, stderr, onNotice: (notice) => notices.push(notice) },
        new AbortController().signal,
      ).finally(() => {
        stdout.end();
        stderr.end();
      });
      running.catch(() => undefined);
      for (const [what, disturb] of DISTURBANCES) {
        const before = bytes;
        await until(`output comes before ${what}`, GUEST_MS, () => bytes > before);
        await disturb();
      }
      const after = bytes;
      await until('output comes after all', GUEST_MS, () => bytes > after);
      const touch = { cmd: 'touch', args: [STOP] };
      expect(await platform.call('POST', `/v1/capsules/${id}/exec`, touch)).toMatchObject({ status: 200 });
      expect(await running).toEqual({ exitCode: 7, signal: null });
      expect(checkLines((await out).toString(), (await err).toString())).toBeGreaterThan(100);
      // The socket and the control plane are the client's own; the rest the platform bridges.
      expect(notices).toHaveLength(2);
    },
    TEST_MS,
  );

  it(
    'of a command that waits for its reader, when the capsule sleeps meanwhile',
    async () => {
      const count = 1_500_000;
      const stdout = new PassThrough();
      const running = execStreaming(
        createApiClient({ baseUrl: platform.baseUrl, credential: platform.apiKey }),
        id,
        { cmd: 'seq', args: [String(count)], stdout, stderr: new PassThrough().resume() },
        new AbortController().signal,
      ).finally(() => stdout.end());
      running.catch(() => undefined);
      await until('nothing more is taken', GUEST_MS, () => stdout.writableNeedDrain);
      const { body } = await platform.call('GET', `/v1/capsules/${id}/processes`);
      expect(body).toMatchObject({ processes: [{ cmd: 'seq' }] });
      expect(await platform.call('POST', `/v1/capsules/${id}/pause`)).toMatchObject({ status: 200 });
      expect(await platform.call('POST', `/v1/capsules/${id}/resume`)).toMatchObject({ status: 200 });
      const text = (await buffer(stdout)).toString();
      expect(await running).toEqual({ exitCode: 0, signal: null });
      expect(text === Array.from({ length: count }, (_, i) => `${i + 1}\n`).join('')).toBe(true);
    },
    TEST_MS,
  );

  it(
    'of a terminal, with what is typed',
    async () => {
      let shown = '';
      using pty = await openPty(
        createApiClient({ baseUrl: platform.baseUrl, credential: platform.apiKey }),
        id,
        {
          program: { cmd: '/bin/sh', args: ['-c', 'stty raw -echo; echo ready; exec cat'] },
          ...{ cols: 80, rows: 24 },
          onOutput: (data) => {
            shown += Buffer.from(data);
            return true;
          },
          onNotice: () => undefined,
        },
        new AbortController().signal,
      );
      await until('it is ready', GUEST_MS, () => shown.includes('ready\n'));
      const before = shown.length;
      let typed = '';
      let number = 0;
      const type = () => {
        const keys = `key ${number++};`;
        typed += keys;
        pty.write(Buffer.from(keys));
      };
      const typing = setInterval(type, 50);
      try {
        for (const [, disturb] of DISTURBANCES) {
          const echoed = shown.length;
          await until('keys come back', GUEST_MS, () => shown.length > echoed);
          await disturb();
        }
        type();
      } finally {
        clearInterval(typing);
      }
      await until('all has come back', GUEST_MS, () => shown.length - before >= typed.length);
      expect(shown.slice(before) === typed).toBe(true);
      pty.kill();
      expect(await pty.exited).toBe(137);
    },
    TEST_MS,
  );
});
