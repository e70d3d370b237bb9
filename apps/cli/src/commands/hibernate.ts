import type { Command } from 'commander';
import { resolveCapsuleIds } from '../capsule-ref.ts';
import { type Cli, print, printJson } from '../cli.ts';
import { eachCapsule } from './each-capsule.ts';

export function addHibernateCommand(program: Command, cli: Cli): void {
  program
    .command('hibernate')
    .description('move paused capsules to the object store, which frees the disk of their host')
    .argument('<id...>', 'capsules that are paused')
    .option('--json', 'print all about them as JSON')
    .addHelpText(
      'after',
      '\n`wrenn resume` brings one back, on any host that can run it.\n\nExample:\n  wrenn pause cl-1a2b && wrenn hibernate cl-1a2b',
    )
    .action(async (refs: string[], options: { json?: boolean }) => {
      const api = cli.api();
      const ids = await resolveCapsuleIds(api, refs, cli.signal);
      const asleep = await eachCapsule(cli, ids, 'hibernating', async (id) => {
        const capsule = await api.hibernateCapsule(id, cli.signal);
        if (!options.json) print(id);
        return capsule;
      });
      if (options.json) printJson(asleep);
    });
}
