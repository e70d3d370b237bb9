import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { findTool } from './command.ts';

interface LockOptions {
  readonly signal: AbortSignal;
  /** Called once when another build holds the lock. */
  readonly onWait?: () => void;
}

/**
 * Runs `work` while this process alone holds the lock file. Other builds wait.
 *
 * The lock is flock(2)'s, held by a small child whose standard input is a pipe from here: however this process ends,
 * the pipe closes, the child ends and the lock is free.
 */
export async function withBuildLock<Result>(
  path: string,
  options: LockOptions,
  work: () => Promise<Result>,
): Promise<Result> {
  options.signal.throwIfAborted();
  await mkdir(dirname(path), { recursive: true });
  const holder = spawn(await findTool('flock'), ['--exclusive', path, 'sh', '-c', 'echo locked; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const closed = once(holder, 'close');
  const onAbort = () => holder.kill('SIGTERM');
  options.signal.addEventListener('abort', onAbort, { once: true });
  if (options.signal.aborted) onAbort();
  const waitTimer = setTimeout(() => options.onWait?.(), 300);
  try {
    const first = await Promise.race([once(holder.stdout, 'data'), closed.then(() => undefined)]);
    options.signal.throwIfAborted();
    if (first === undefined) {
      throw new WrennError('image_build_failed', { step: 'lock', problem: `flock could not lock ${path}` });
    }
    clearTimeout(waitTimer);
    // From here on the lock is held until `work` has ended, also when it ends because of the signal.
    options.signal.removeEventListener('abort', onAbort);
    return await work();
  } finally {
    clearTimeout(waitTimer);
    options.signal.removeEventListener('abort', onAbort);
    holder.stdin.end();
    await closed;
  }
}
