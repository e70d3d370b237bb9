import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { systemCodeOf } from '../cli-error.ts';

const run = promisify(execFile);
const TIMEOUT_MS = 15_000;

/** How a program of the machine ended: its output, or why there is none. */
export type CommandResult =
  | { readonly ok: true; readonly stdout: string }
  | { readonly ok: false; readonly missing: boolean; readonly reason: string };

export async function tryCommand(file: string, args: readonly string[], signal: AbortSignal): Promise<CommandResult> {
  try {
    const { stdout } = await run(file, [...args], {
      timeout: TIMEOUT_MS,
      signal,
      env: { ...process.env, LC_ALL: 'C' },
    });
    return { ok: true, stdout };
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof Error)) throw error;
    const stderr = 'stderr' in error && typeof error.stderr === 'string' ? error.stderr.trim() : '';
    return { ok: false, missing: systemCodeOf(error) === 'ENOENT', reason: stderr.split('\n')[0] || error.message };
  }
}
