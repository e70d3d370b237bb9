import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';

export const WRENN = join(import.meta.dirname, '..', '..', '..', 'apps', 'cli', 'bin', 'wrenn');

export interface WrennResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** stdout byte for byte. */
  readonly bytes: Buffer;
}

/** A wrenn command that runs. */
export interface RunningWrenn {
  readonly child: ChildProcessWithoutNullStreams;
  readonly result: Promise<WrennResult>;
}

/** Starts the command as a process of its own. Its input stays open until `child.stdin` is ended. */
export function startWrenn(args: readonly string[], env: Readonly<Record<string, string>>): RunningWrenn {
  const child = spawn(WRENN, args, { env: { ...process.env, ...env } });
  // A command that ends before it has read its input is for the test to judge by its result.
  child.stdin.on('error', () => undefined);
  const result = (async () => {
    const [out, err, [status]] = await Promise.all([buffer(child.stdout), buffer(child.stderr), once(child, 'close')]);
    return { status, stdout: out.toString(), stderr: err.toString(), bytes: out };
  })();
  return { child, result };
}

/** Runs the command to its end with this input. */
export async function wrenn(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  input: string | Uint8Array = '',
): Promise<WrennResult> {
  const { child, result } = startWrenn(args, env);
  child.stdin.end(input);
  return result;
}
