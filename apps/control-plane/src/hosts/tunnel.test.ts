import { once } from 'node:events';
import { connect, createServer, type Http2Session } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { startStopwatch } from '@wrenn/testing/stopwatch';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { HostSession } from './host-session.ts';
import { openTunnel } from './tunnel.ts';

let stack: AsyncDisposableStack;
beforeEach(() => {
  stack = new AsyncDisposableStack();
});
afterEach(() => stack.disposeAsync());

/** What a host does with the connection on which somebody asks for a tunnel. */
async function sessionOf(onTunnel: (session: Http2Session) => void): Promise<HostSession> {
  const server = createServer().on('stream', (stream) => {
    stream.on('error', () => undefined);
    if (stream.session) onTunnel(stream.session);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stack.defer(async () => {
    server.close();
    await once(server, 'close');
  });
  const session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  session.on('error', () => undefined);
  stack.defer(() => session.destroy());
  const connectTo = async (target: string) =>
    session.request({ ':method': 'CONNECT', ':authority': target }, { endStream: false });
  return { connectTo } as unknown as HostSession;
}

it.each<[string, (session: Http2Session) => void]>([
  ['is destroyed', (session) => session.destroy()],
  ['breaks', (session) => session.socket.destroy()],
])('a tunnel whose connection %s while it opens is refused at once', async (_, onTunnel) => {
  const session = await sessionOf(onTunnel);
  using stopwatch = startStopwatch();
  await expect(openTunnel(session, 'cl-1', 80)).rejects.toMatchObject({ code: 'host_unavailable' });
  expect(stopwatch.elapsedMs).toBeLessThan(10_000);
});
