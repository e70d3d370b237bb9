import type { Command } from 'commander';
import { type Cli, print } from '../cli.ts';
import { addNewCapsuleOptions, createWithProgress, type NewCapsuleOptions, toCreateBody } from './new-capsule.ts';

export function addCreateCommand(program: Command, cli: Cli): void {
  const command = program
    .command('create')
    .description('create a capsule and print its id')
    .addHelpText('after', '\nExample:\n  id=$(wrenn create --memory 1G --label job=42)\n  wrenn exec $id -- uname -a');
  addNewCapsuleOptions(command)
    .option('--json', 'print all about it as JSON')
    .action(async (options: NewCapsuleOptions & { json?: boolean }) => {
      const capsule = await createWithProgress(cli.api(), toCreateBody(options), cli.signal);
      print(options.json ? JSON.stringify(capsule, null, 2) : capsule.id);
    });
}
