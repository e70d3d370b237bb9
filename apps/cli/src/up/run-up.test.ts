import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { capsuleBody } from '../testing/fake-api.ts';
import { countCapsules } from './run-up.ts';

it('counts what keeps running although everything stands still meanwhile', async () => {
  const server = createServer((_, response) => {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5500);
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify([capsuleBody()]));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    const connection = { baseUrl: `http://127.0.0.1:${port}`, credential: 'wrn_test' };
    expect(await countCapsules({ connection })).toBe(1);
  } finally {
    server.close().closeAllConnections();
  }
});
