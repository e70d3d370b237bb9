import { once } from 'node:events';
import { createServer } from 'node:net';

/** A TCP port of 127.0.0.1 that nothing listens on at this moment. Another program may take it before the caller does. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port;
}

/** Several such ports, each another one: one after the other, `freePort` may give the same port twice. */
export function freePorts(count: 1): Promise<[number]>;
export function freePorts(count: 2): Promise<[number, number]>;
export function freePorts(count: number): Promise<number[]>;
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  try {
    return await Promise.all(
      servers.map(async (server) => {
        await once(server.listen({ host: '127.0.0.1', port: 0 }), 'listening');
        const address = server.address();
        if (address === null || typeof address === 'string') throw new Error('a TCP server has a port');
        return address.port;
      }),
    );
  } finally {
    await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  }
}
