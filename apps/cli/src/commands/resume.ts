import type { Command } from 'commander';
import { resolveCapsuleIds } from '../capsule-ref.ts';
import { type Cli, note, print, printJson } from '../cli.ts';
import { eachCapsule } from './each-capsule.ts';
import { printTrace } from './trace.ts';

interface ResumeOptions {
  discardMemory?: boolean;
  trace?: boolean;
  json?: boolean;
}

export function addResumeCommand(program: Command, cli: Cli): void {
  program
    .command('resume')
    .description('wake capsules that are paused or hibernated')
    .argument('<id...>', 'the capsules')
    .option('--discard-memory', 'boot the disk without the memory, where that is damaged or of another CPU')
    .option('--trace', 'show the timeline of the start')
    .option('--json', 'print all about them as JSON')
    .addHelpText('after', '\nExample:\n  wrenn resume cl-1a2b\n  wrenn resume --trace cl-1a2b')
    .action(async (refs: string[], options: ResumeOptions) => {
      const api = cli.api();
      const ids = await resolveCapsuleIds(api, refs, cli.signal);
      const awake = await eachCapsule(cli, ids, 'resuming', async (id) => {
        const resumed = await api.resumeCapsule(id, options.discardMemory ? 'discard' : 'keep', cli.signal);
        const capsule = options.trace ? await api.getCapsule(id, cli.signal) : resumed;
        if (capsule.memory === 'discarded') {
          note(`${id} booted from its disk, without the memory and the programs that it slept with.`);
        }
        if (!options.json) print(id);
        return capsule;
      });
      if (options.json) return printJson(awake);
      if (options.trace) for (const capsule of awake) printTrace(capsule);
    });
}
