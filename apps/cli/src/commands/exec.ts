import type { Command } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import type { Cli } from '../cli.ts';
import { addGuestCommandOptions, type GuestCommandOptions, runGuestCommand, splitCommand } from './guest-command.ts';
import { collectEnv } from './options.ts';

export function addExecCommand(program: Command, cli: Cli): void {
  const command = program
    .command('exec')
    .description('run a command in a capsule; its output, input and exit code are yours')
    .argument('<id>', 'the capsule')
    .argument('<command...>', 'the command and its arguments')
    .passThroughOptions()
    .option(
      '-e, --env <name=value>',
      'environment variable of the command; repeatable',
      (text, previous?: Record<string, string>) => collectEnv(text, previous),
    )
    .addHelpText(
      'after',
      '\nOptions stand before the id. Ctrl-C goes to the command; a second one leaves it.\n\nExample:\n  wrenn exec cl-1a2b -- ls -la /\n  echo 6*7 | wrenn exec cl-1a2b -- python3 -c "print(eval(input()))"',
    );
  addGuestCommandOptions(command).action(
    async (ref: string, words: string[], options: GuestCommandOptions & { env?: Record<string, string> }) => {
      splitCommand(words);
      const api = cli.api();
      const id = await resolveCapsuleId(api, ref, cli.signal);
      cli.exitCode = await runGuestCommand(cli, api, id, words, { ...options, forwardInterrupt: true });
    },
  );
}
