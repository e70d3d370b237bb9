import { styleText } from 'node:util';
import { CAPSULE_STATUSES, type CapsuleBody, type CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import type { Command } from 'commander';
import { type Cli, note, print, printJson } from '../cli.ts';
import { formatAge } from '../terminal/format.ts';
import { type Column, formatTable } from '../terminal/table.ts';

/** States that `wrenn ls` shows unless it is told otherwise: all that still exist. */
export const EXISTING = CAPSULE_STATUSES.filter((status) => status !== 'stopped').join(',');

export function addLsCommand(program: Command, cli: Cli): void {
  program
    .command('ls')
    .alias('list')
    .description('list capsules')
    .option('-a, --all', 'also those that have ended')
    .option('-q, --quiet', 'only their ids')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn ls\n  wrenn ls --json | jq -r ".[].id"')
    .action(async (options: { all?: boolean; quiet?: boolean; json?: boolean }) => {
      const capsules = await cli.api().listCapsules(cli.signal, options.all ? 'all' : EXISTING);
      if (options.json) return printJson(capsules);
      if (options.quiet) return capsules.forEach((capsule) => void print(capsule.id));
      if (capsules.length === 0) return note('There are no capsules. `wrenn create` makes one.');
      print(formatCapsules(capsules, Date.now()));
      for (const { id, status, status_reason } of capsules) {
        if (status_reason !== null && (status === 'error' || status === 'missing')) note(`${id}: ${status_reason}`);
      }
    });
}

/** Capsules as a table. Where one is asleep it also says since when. */
export function formatCapsules(capsules: readonly CapsuleBody[], nowMs: number): string {
  const asleep: Column<CapsuleBody> = {
    title: 'ASLEEP',
    value: ({ status, slept_at }) =>
      isAsleep(status) && slept_at !== null ? formatAge(nowMs - Date.parse(slept_at)) : '',
    align: 'right',
  };
  const columns = capsules.some(({ status }) => isAsleep(status)) ? [...columnsAt(nowMs), asleep] : columnsAt(nowMs);
  return formatTable(columns, capsules);
}

function columnsAt(nowMs: number): Column<CapsuleBody>[] {
  return [
    { title: 'ID', value: (capsule) => capsule.id },
    { title: 'STATUS', value: ({ status }) => colourOf(status) },
    { title: 'TEMPLATE', value: ({ template }) => template },
    { title: 'VCPUS', value: ({ vcpus }) => String(vcpus), align: 'right' },
    { title: 'MEMORY', value: ({ memory_mb }) => `${memory_mb} MiB`, align: 'right' },
    { title: 'AGE', value: ({ created_at }) => formatAge(nowMs - Date.parse(created_at)), align: 'right' },
  ];
}

/** Whether nothing of it runs and it can be resumed. */
export function isAsleep(status: CapsuleStatus): boolean {
  return status === 'paused' || status === 'hibernating' || status === 'hibernated';
}

/** The name of a state in the colour of how it fares, where the output has colours. */
export function colourOf(status: CapsuleStatus): string {
  if (status === 'stopped') return status;
  return styleText(STATUS_COLOURS[status] ?? 'yellow', status, { stream: process.stdout });
}

/** What is not here is on its way to another state. */
const STATUS_COLOURS: Partial<Record<CapsuleStatus, 'green' | 'blue' | 'red'>> = {
  running: 'green',
  forking: 'green',
  paused: 'blue',
  hibernated: 'blue',
  error: 'red',
  missing: 'red',
};
