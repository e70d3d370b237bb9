import type { Command } from 'commander';
import { resolveCapsuleIds } from '../capsule-ref.ts';
import { type Cli, note, print } from '../cli.ts';
import { CliError, EXIT } from '../cli-error.ts';
import { eachCapsule } from './each-capsule.ts';
import { EXISTING } from './ls.ts';

export function addRmCommand(program: Command, cli: Cli): void {
  program
    .command('rm')
    .description('destroy capsules')
    .argument('[id...]', 'capsules to destroy')
    .option('--all', 'all capsules')
    .addHelpText('after', '\nExample:\n  wrenn rm cl-1a2b cl-9z8y\n  wrenn rm --all')
    .action(async (refs: string[], options: { all?: boolean }) => {
      if (refs.length > 0 === (options.all === true)) {
        throw new CliError('Name the capsules to destroy, or give --all.', '`wrenn ls` lists them.', {
          exitCode: EXIT.usage,
        });
      }
      const api = cli.api();
      const ids = options.all
        ? (await api.listCapsules(cli.signal, EXISTING)).map((capsule) => capsule.id)
        : await resolveCapsuleIds(api, refs, cli.signal);
      if (ids.length === 0) return note('There are no capsules.');
      await eachCapsule(cli, ids, 'destroying', async (id) => {
        await api.destroyCapsule(id, cli.signal);
        print(id);
      });
    });
}
