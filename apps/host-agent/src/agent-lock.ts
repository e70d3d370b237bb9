import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';

/**
 * Makes sure that one agent only uses a WRENN_DIR. The lock is an abstract socket, which the kernel frees when the
 * process ends in whatever way.
 *
 * @throws Error when another agent has it.
 */
export async function lockWrennDir(realPath: string): Promise<Disposable> {
  const lock = createServer();
  lock.listen(`\0wrenn-agent:${createHash('sha256').update(realPath).digest('hex')}`);
  try {
    await once(lock, 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    throw new Error(`Another agent already runs with WRENN_DIR=${realPath}. Stop it, or give this one another folder.`);
  }
  lock.unref();
  return { [Symbol.dispose]: () => lock.close() };
}
