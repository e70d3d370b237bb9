import { styleText } from 'node:util';
import { CAPSULE_STATUSES, type CapsuleBody, type CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import type { Command } from 'commander';
import { type Cli, note, print } from '../cli.ts';
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
      if (options.json) return print(JSON.stringify(capsules, null, 2));
      if (options.quiet) return capsules.forEach((capsule) => void print(capsule.id));
      if (capsules.length === 0) return note('There are no capsules. `wrenn create` makes one.');
      print(formatTable(columns(Date.now()), capsules));
      for (const { id, status, status_reason } of capsules) {
        if (status_reason !== null && (status === 'error' || status === 'missing')) note(`${id}: ${status_reason}`);
      }
    });
}

function columns(nowMs: number): Column<CapsuleBody>[] {
  return [
    { title: 'ID', value: (capsule) => capsule.id },
    { title: 'STATUS', value: ({ status }) => colourOf(status) },
    { title: 'TEMPLATE', value: ({ template }) => template },
    { title: 'VCPUS', value: ({ vcpus }) => String(vcpus), align: 'right' },
    { title: 'MEMORY', value: ({ memory_mb }) => `${memory_mb} MiB`, align: 'right' },
    { title: 'AGE', value: ({ created_at }) => formatAge(nowMs - Date.parse(created_at)), align: 'right' },
  ];
}

function colourOf(status: CapsuleStatus): string {
  const colour = status === 'running' ? 'green' : status === 'error' || status === 'missing' ? 'red' : 'yellow';
  return status === 'stopped' ? status : styleText(colour, status, { stream: process.stdout });
}
