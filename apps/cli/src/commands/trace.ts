import type { CapsuleBody } from '@wrenn/protocol/rest/capsule';
import type { Command } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, print, printJson } from '../cli.ts';
import { CliError } from '../cli-error.ts';
import { formatAge, formatInstant } from '../terminal/format.ts';
import { drawWaterfall } from '../terminal/waterfall.ts';

/** Where the output is no terminal. */
const DEFAULT_WIDTH = 100;

export function addTraceCommand(program: Command, cli: Cli): void {
  program
    .command('trace')
    .description('show where the time of the last start of a capsule went')
    .argument('<id>', 'the capsule')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn trace cl-1a2b\n  wrenn resume --trace cl-1a2b')
    .action(async (ref: string, options: { json?: boolean }) => {
      const api = cli.api();
      const capsule = await api.getCapsule(await resolveCapsuleId(api, ref, cli.signal), cli.signal);
      if (!options.json) return printTrace(capsule);
      printJson(traceOf(capsule));
    });
}

/** Draws the timeline of the last start. @throws CliError when there is none. */
export function printTrace(capsule: CapsuleBody): void {
  const trace = traceOf(capsule);
  const ago = formatAge(Date.now() - Date.parse(trace.started_at));
  print(`${capsule.id}: ${trace.kind} at ${formatInstant(trace.started_at)}, ${ago} ago`);
  print(drawWaterfall(trace, process.stdout.columns ?? DEFAULT_WIDTH));
}

function traceOf({ id, status, trace }: CapsuleBody) {
  if (trace) return trace;
  throw new CliError(`There is no timeline of ${id}.`, `It is ${status}; one is kept once a start has succeeded.`);
}
