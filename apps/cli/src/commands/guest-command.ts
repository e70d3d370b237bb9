import type { Command } from 'commander';
import type { ApiClient } from '../api/client.ts';
import { execStreaming } from '../api/exec-stream.ts';
import { type Cli, note } from '../cli.ts';
import { CliError, EXIT } from '../cli-error.ts';
import { attachTerminal } from '../terminal/attach.ts';
import { parseSeconds } from './options.ts';

/** Options of every command that runs a program in a capsule. */
export interface GuestCommandOptions {
  user?: string;
  workdir?: string;
  limit?: number;
  tty?: boolean;
  stdin: boolean;
}

export function addGuestCommandOptions(command: Command): Command {
  return command
    .option('-u, --user <name>', "user in the capsule (default: the template's)")
    .option('-w, --workdir <path>', "working directory (default: the template's)")
    .option('--limit <time>', 'kill the command after this time, as 90s or 15m (default: never)', parseSeconds)
    .option('-t, --tty', 'give the command a terminal')
    .option('--no-stdin', 'let the command read an empty input instead of the input of wrenn');
}

/** The words of a command after the operands; a `--` before them is not part of it. */
export function splitCommand(words: readonly string[]): { cmd: string; args: string[] } {
  const [cmd, ...args] = words[0] === '--' ? words.slice(1) : words;
  if (cmd === undefined || cmd === '') {
    throw new CliError('Say which command to run, after `--`.', 'For example: -- python3 -c "print(6*7)"', {
      exitCode: EXIT.usage,
    });
  }
  return { cmd, args };
}

const SIGINT = 2;

/**
 * Runs a command with our streams and answers its exit code. With `forwardInterrupt`, Ctrl-C goes to the command;
 * a second one ends the wait.
 */
export async function runGuestCommand(
  cli: Cli,
  api: ApiClient,
  capsuleId: string,
  words: readonly string[],
  options: GuestCommandOptions & { env?: Record<string, string>; forwardInterrupt: boolean },
): Promise<number> {
  const { cmd, args } = splitCommand(words);
  const { user, workdir: cwd, env: envs = {} } = options;
  if (options.tty) return attachTerminal(cli, api, capsuleId, { cmd, args, envs, cwd, user });
  let sendSignal: ((signal: number) => void) | undefined;
  let forwarded = false;
  using _ = cli.interrupts.handle((signal) => {
    if (!options.forwardInterrupt || signal !== 'SIGINT' || sendSignal === undefined || forwarded) return false;
    forwarded = true;
    sendSignal(SIGINT);
    return true;
  });
  const exit = await execStreaming(
    api,
    capsuleId,
    {
      cmd,
      args,
      envs,
      cwd,
      user,
      timeoutSec: options.limit,
      // A terminal is for the person; what is piped in is for the command.
      stdin: options.stdin && !process.stdin.isTTY ? process.stdin : undefined,
      stdout: process.stdout,
      stderr: process.stderr,
      onStarted: (send) => {
        sendSignal = send;
      },
      onNotice: (message) => note(`wrenn: ${message}`),
    },
    cli.signal,
  );
  return exit.exitCode;
}
