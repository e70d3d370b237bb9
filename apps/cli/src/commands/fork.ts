import { MAX_FORKS } from '@wrenn/protocol/rest/sleep';
import { type Command, InvalidArgumentError } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, print, printJson } from '../cli.ts';
import { startProgress } from '../terminal/progress.ts';
import { collectLabel, wholeNumber } from './options.ts';
import { printTrace } from './trace.ts';

interface ForkOptions {
  count: number;
  label?: Record<string, string>;
  trace?: boolean;
  json?: boolean;
}

export function addForkCommand(program: Command, cli: Cli): void {
  program
    .command('fork')
    .description('copy a running capsule, with its memory and disk, into new ones; print their ids')
    .argument('<id>', 'a capsule that runs; it goes on')
    .option('-n, --count <n>', `how many, up to ${MAX_FORKS}; all of them or none`, parseCount, 1)
    .option('--label <name=value>', "label of the new ones in place of the source's; repeatable", collectLabel)
    .option('--trace', 'show the timeline of each start')
    .option('--json', 'print all about them as JSON')
    .addHelpText(
      'after',
      '\nExample:\n  wrenn fork cl-1a2b\n  for id in $(wrenn fork -n 4 cl-1a2b); do wrenn exec $id -- hostname; done',
    )
    .action(async (ref: string, { count, label, trace, json }: ForkOptions) => {
      const api = cli.api();
      const id = await resolveCapsuleId(api, ref, cli.signal);
      using progress = startProgress('forking the capsule');
      if (count > 1) progress.update(`into ${count}`);
      const request = { count, ...(label === undefined ? {} : { metadata: label }) };
      const made = await api.forkCapsule(id, request, cli.signal);
      const children = trace ? await Promise.all(made.map((child) => api.getCapsule(child.id, cli.signal))) : made;
      if (json) return printJson(children);
      for (const child of children) print(child.id);
      if (trace) for (const child of children) printTrace(child);
    });
}

function parseCount(text: string): number {
  const count = wholeNumber(1)(text);
  if (count > MAX_FORKS) throw new InvalidArgumentError(`One fork makes at most ${MAX_FORKS}.`);
  return count;
}
