import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { expect, it } from 'vitest';
import { askGuest, ENVD_PORT } from './guest-connection.ts';

const ADDRESS = '127.98.7.6';

it('makes no attempt once its caller has left', async () => {
  const reason = new Error('the caller left');
  const leave = new AbortController();
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    if (connections === 3) leave.abort(reason);
    socket.destroy();
  }).listen(ENVD_PORT, ADDRESS);
  await once(server, 'listening');
  try {
    const request = { hostIp: ADDRESS, method: 'GET', path: '/health' } as const;
    await expect(askGuest(request, AbortSignal.abort(reason))).rejects.toBe(reason);
    // Broken by the guest, and asked again, until the signal fires.
    await expect(askGuest(request, leave.signal)).rejects.toBe(reason);
    // Accepted after every connection that was made before.
    await once(connect(ENVD_PORT, ADDRESS).resume(), 'close');
    const before = connections;
    expect(before).toBeGreaterThan(3);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(connections).toBe(before);
  } finally {
    server.close();
    await once(server, 'close');
  }
});
