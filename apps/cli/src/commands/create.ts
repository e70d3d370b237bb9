import type { Command } from 'commander';
import { type Cli, print, printJson } from '../cli.ts';
import { addNewCapsuleOptions, createWithProgress, type NewCapsuleOptions, toCreateBody } from './new-capsule.ts';
import { printTrace } from './trace.ts';

export function addCreateCommand(program: Command, cli: Cli): void {
  const command = program
    .command('create')
    .description('create a capsule and print its id')
    .addHelpText('after', '\nExample:\n  id=$(wrenn create --memory 1G --label job=42)\n  wrenn exec $id -- uname -a');
  addNewCapsuleOptions(command)
    .option('--trace', 'show the timeline of its start')
    .option('--json', 'print all about it as JSON')
    .action(async (options: NewCapsuleOptions & { trace?: boolean; json?: boolean }) => {
      const api = cli.api();
      const made = await createWithProgress(api, toCreateBody(options), cli.signal);
      const capsule = options.trace ? await api.getCapsule(made.id, cli.signal) : made;
      if (options.json) printJson(capsule);
      else print(capsule.id);
      if (options.trace && !options.json) printTrace(capsule);
    });
}
