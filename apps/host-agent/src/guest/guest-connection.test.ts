import { once } from 'node:events';
import { createServer } from 'node:net';
import { expect, it } from 'vitest';
import { askGuest, ENVD_PORT } from './guest-connection.ts';

const ADDRESS = '127.98.7.6';

it('makes no attempt once its caller has left', async () => {
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    socket.destroy();
  }).listen(ENVD_PORT, ADDRESS);
  await once(server, 'listening');
  try {
    const request = { hostIp: ADDRESS, method: 'GET', path: '/health' } as const;
    const reason = new Error('the caller left');
    await expect(askGuest(request, AbortSignal.abort(reason))).rejects.toBe(reason);
    // Broken by the guest, and asked again, until the signal fires in a pause or an attempt.
    const leave = new AbortController();
    const asking = askGuest(request, leave.signal);
    setTimeout(() => leave.abort(reason), 100);
    await expect(asking).rejects.toBe(reason);
    const before = connections;
    expect(before).toBeGreaterThan(0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(connections).toBe(before);
  } finally {
    server.close();
    await once(server, 'close');
  }
});
