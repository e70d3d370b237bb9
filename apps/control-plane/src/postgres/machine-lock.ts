import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/**
 * Holds a lock that one process of this machine has at a time, and that ends with the process. It is an abstract Unix
 * socket (unix(7)): the kernel gives a name to one listener, and whoever waits is told by its connection's end.
 *
 * @throws Error when the lock was not to be had within the time.
 */
export async function acquireMachineLock(name: string, timeoutMs: number): Promise<AsyncDisposable> {
  const path = `\0${name}`;
  const deadline = AbortSignal.timeout(timeoutMs);
  for (;;) {
    const server = createServer();
    const held = await listen(server.listen(path));
    if (held) {
      const waiting = new Set<{ destroy(): void }>();
      server.on('connection', (socket) => {
        waiting.add(socket);
        socket.on('error', () => undefined).once('close', () => waiting.delete(socket));
      });
      return {
        [Symbol.asyncDispose]: async () => {
          const closed = once(server, 'close');
          server.close();
          for (const socket of waiting) socket.destroy();
          await closed;
        },
      };
    }
    await untilReleased(path, deadline);
    if (deadline.aborted) throw new Error(`Another process has held the lock "${name}" for more than ${timeoutMs} ms.`);
  }
}

/** A connection to the holder ends with the holding, however that ends. */
async function untilReleased(path: string, deadline: AbortSignal): Promise<void> {
  const socket = connect(path);
  const giveUp = () => socket.destroy();
  deadline.addEventListener('abort', giveUp);
  if (deadline.aborted) giveUp();
  // Resumed, so that the end of the other side is seen.
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  socket.on('error', () => undefined).resume();
  await closed;
  deadline.removeEventListener('abort', giveUp);
}

async function listen(server: ReturnType<typeof createServer>): Promise<boolean> {
  try {
    await once(server, 'listening');
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return false;
    throw error;
  }
}
