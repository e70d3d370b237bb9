import type { Command } from 'commander';
import { resolveCapsuleIds } from '../capsule-ref.ts';
import { type Cli, print, printJson } from '../cli.ts';
import { eachCapsule } from './each-capsule.ts';

export function addPauseCommand(program: Command, cli: Cli): void {
  program
    .command('pause')
    .description('put capsules to sleep: memory and disk go to stable storage, nothing of them runs')
    .argument('<id...>', 'capsules that run')
    .option('--json', 'print all about them as JSON')
    .addHelpText('after', '\nExample:\n  wrenn pause cl-1a2b\n  wrenn resume cl-1a2b')
    .action(async (refs: string[], options: { json?: boolean }) => {
      const api = cli.api();
      const ids = await resolveCapsuleIds(api, refs, cli.signal);
      const paused = await eachCapsule(cli, ids, 'pausing', async (id) => {
        const capsule = await api.pauseCapsule(id, cli.signal);
        if (!options.json) print(id);
        return capsule;
      });
      if (options.json) printJson(paused);
    });
}
