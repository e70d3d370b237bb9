import type { ApiClient } from '../api/client.ts';
import { execStreaming } from '../api/exec-stream.ts';
import { print } from '../cli.ts';
import { CliError } from '../cli-error.ts';
import { startProgress } from '../terminal/progress.ts';
import { LineWriter } from './line-writer.ts';

const COMMAND_LIMIT_SEC = 120;

/** One line of a step. */
export function say(line: string): void {
  print(`  ${line}`);
}

/**
 * Runs a command in a capsule to its end and tells each line of its output as it comes.
 *
 * @throws CliError when it ends with another code than 0
 */
export async function run(
  api: ApiClient,
  id: string,
  cmd: string,
  args: readonly string[],
  signal: AbortSignal,
  tell: (line: string) => void = say,
): Promise<LineWriter> {
  using _ = startProgress('running');
  const stdout = new LineWriter(({ text }) => tell(text));
  const stderr = new LineWriter(({ text }) => tell(text));
  const { exitCode } = await execStreaming(
    api,
    id,
    { cmd, args, timeoutSec: COMMAND_LIMIT_SEC, stdout, stderr },
    signal,
  );
  if (exitCode !== 0) throw new CliError(`"${cmd}" ended with exit code ${exitCode}: ${stderr.text}`);
  return stdout;
}
