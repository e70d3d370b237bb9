import type { Command } from 'commander';
import type { Cli } from '../cli.ts';
import { addGuestCommandOptions, type GuestCommandOptions, runGuestCommand, splitCommand } from './guest-command.ts';
import { addNewCapsuleOptions, type NewCapsuleOptions, withTemporaryCapsule } from './new-capsule.ts';

export function addRunCommand(program: Command, cli: Cli): void {
  const command = program
    .command('run')
    .description('run a command in a new capsule, which is destroyed after')
    .argument('<command...>', 'the command and its arguments')
    .passThroughOptions()
    .option('--keep', 'keep the capsule')
    .addHelpText(
      'after',
      "\nExample:\n  wrenn run -- python3 -c 'print(6*7)'\n  wrenn run --memory 2G -e NAME=you -- sh -c 'echo hello $NAME'",
    );
  addNewCapsuleOptions(command);
  addGuestCommandOptions(command).action(
    async (words: string[], options: NewCapsuleOptions & GuestCommandOptions & { keep?: boolean }) => {
      splitCommand(words);
      const api = cli.api();
      cli.exitCode = await withTemporaryCapsule(cli, api, options, (capsule) =>
        // The capsule ends with the command: Ctrl-C need not wait for the guest's own answer to it.
        runGuestCommand(cli, api, capsule.id, words, { ...options, env: {}, forwardInterrupt: false }),
      );
    },
  );
}
