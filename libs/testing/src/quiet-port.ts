import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Below the ports that Linux gives away by itself (ip_local_port_range). */
const PORTS = [10_000, 32_000] as const;

/**
 * A TCP port of 127.0.0.1 that nothing listens on, for a server that goes and comes back: meanwhile nobody else is given
 * it, as one of those that the kernel chooses would be.
 */
export async function quietPort(): Promise<number> {
  for (;;) {
    const port = randomInt(...PORTS);
    const server = createServer().listen({ host: '127.0.0.1', port });
    try {
      await once(server, 'listening');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') continue;
      throw error;
    }
    server.close();
    await once(server, 'close');
    return port;
  }
}
