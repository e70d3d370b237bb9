import { Agent } from 'node:http';
import { createClient, type Interceptor, type Transport } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { Process } from '@wrenn/protocol/gen/process/process_pb';
import { ENVD_PORT } from './guest-connection.ts';

/**
 * envd's protocol to a guest that has no token yet, or has this one. No connection stays open: it would be in the
 * snapshot without another end.
 */
export function guestTransport(hostIp: string, token?: string): Transport {
  return createConnectTransport({
    httpVersion: '1.1',
    baseUrl: `http://${hostIp}:${ENVD_PORT}`,
    nodeOptions: { agent: new Agent({ keepAlive: false }) },
    interceptors: token === undefined ? [] : [withToken(token)],
  });
}

function withToken(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set('X-Access-Token', token);
    return next(request);
  };
}

export interface GuestProgram {
  readonly cmd: string;
  readonly args: readonly string[];
  /** The guest's default user unless told. */
  readonly user?: string;
}

/** @throws Error with the end of its output when the program ends with another code than 0. */
export async function runGuestProgram(transport: Transport, program: GuestProgram, signal: AbortSignal): Promise<void> {
  const { cmd, args, user } = program;
  const headers = user === undefined ? {} : { Authorization: `Basic ${Buffer.from(`${user}:`).toString('base64')}` };
  let output = '';
  const request = { process: { cmd, args: [...args] }, stdin: false };
  for await (const { event } of createClient(Process, transport).start(request, { signal, headers })) {
    if (event?.event.case === 'data') {
      output = `${output}${Buffer.from(event.event.value.output.value ?? [])}`.slice(-1000);
    }
    if (event?.event.case !== 'end') continue;
    const { exited, exitCode, error } = event.event.value;
    if (exited && exitCode === 0) return;
    throw new Error(`${cmd} in the guest: ${error || `code ${exitCode}`}: ${output.trim()}`);
  }
  throw new Error(`${cmd} in the guest: no end was told`);
}
