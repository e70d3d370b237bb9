import type { Command } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, print, printJson } from '../cli.ts';
import { startProgress } from '../terminal/progress.ts';

export function addSnapshotCommand(program: Command, cli: Cli): void {
  program
    .command('snapshot')
    .description('make a template of a capsule, with its memory and disk, and print its name')
    .argument('<id>', 'a capsule that runs or is paused; it stays as it is')
    .argument('[name]', 'name of the template (default: a new one)')
    .option('--json', 'print all about it as JSON')
    .addHelpText('after', '\nExample:\n  wrenn snapshot cl-1a2b ready-to-test\n  wrenn create --template ready-to-test')
    .action(async (ref: string, name: string | undefined, options: { json?: boolean }) => {
      const api = cli.api();
      const id = await resolveCapsuleId(api, ref, cli.signal);
      using _ = startProgress('making a snapshot of the capsule');
      const snapshot = await api.snapshotCapsule(id, name, cli.signal);
      if (options.json) printJson(snapshot);
      else print(snapshot.name);
    });
}
