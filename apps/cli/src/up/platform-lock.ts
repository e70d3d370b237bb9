import { spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { CliError } from '../cli-error.ts';
import { type PlatformState, platformStateFile, readPlatformState, startTicksOf } from './platform-state.ts';

/** The right of one `wrenn up` to run on a WRENN_DIR. The kernel takes it back when the process ends, however it ends. */
export interface PlatformLock extends Disposable {
  /** Tells other commands where the API is. */
  publish(baseUrl: string): void;
}

/**
 * Takes the lock, or says who has it.
 *
 * @throws CliError when another `wrenn up` runs on this folder.
 */
export function takePlatformLock(dir: WrennDir): PlatformLock {
  const fd = openSync(platformStateFile(dir), 'a+', 0o644);
  // flock(2) belongs to the open file, which the child shares with this process: it outlives the child.
  const result = spawnSync('flock', ['--nonblock', '--conflict-exit-code', '75', '3'], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
    timeout: 10_000,
    encoding: 'utf8',
  });
  if (result.status !== 0) {
    closeSync(fd);
    if (result.status === 75) throw heldBy(dir, readPlatformState(dir));
    const reason = result.error?.message ?? result.stderr.trim();
    throw new CliError(`${platformStateFile(dir)} cannot be locked: ${reason}`, 'Run `wrenn doctor`.');
  }
  return {
    publish(baseUrl) {
      const state: PlatformState = { pid: process.pid, startTicks: startTicksOf(process.pid) ?? '', baseUrl };
      ftruncateSync(fd);
      writeSync(fd, `${JSON.stringify(state)}\n`);
    },
    [Symbol.dispose]() {
      ftruncateSync(fd);
      closeSync(fd);
    },
  };
}

function heldBy(dir: WrennDir, state: PlatformState | undefined): CliError {
  return new CliError(
    state === undefined
      ? `Another \`wrenn up\` is starting on ${dir.root}.`
      : `\`wrenn up\` (process ${state.pid}) runs on ${dir.root} already; its API is at ${state.baseUrl}.`,
    'Use it, stop it with `wrenn down`, or set WRENN_DIR to another folder.',
  );
}
