import type { SnapshotBody } from '@wrenn/protocol/rest/sleep';
import type { Command } from 'commander';
import { type Cli, note, print, printJson } from '../cli.ts';
import { describeFailure, EXIT } from '../cli-error.ts';
import { formatAge, formatBytes } from '../terminal/format.ts';
import { startProgress } from '../terminal/progress.ts';
import { type Column, formatTable } from '../terminal/table.ts';

export function addSnapshotsCommand(program: Command, cli: Cli): void {
  const command = program
    .command('snapshots')
    .alias('templates')
    .description('list what capsules can be made of: templates and snapshots')
    .option('-q, --quiet', 'only the names of snapshots')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn snapshots\n  wrenn snapshots rm ready-to-test')
    .action(async (options: { quiet?: boolean; json?: boolean }) => {
      const snapshots = await cli.api().listSnapshots(cli.signal);
      if (options.json) return printJson(snapshots);
      if (options.quiet) {
        for (const { name, type } of snapshots) if (type === 'snapshot') print(name);
        return;
      }
      if (snapshots.length === 0) return note('There are no templates. `make image` builds the first.');
      print(formatTable(columns(Date.now()), snapshots));
    });
  command
    .command('rm')
    .description('delete snapshots; capsules that were made of them stay')
    .argument('<name...>', 'their names')
    .addHelpText('after', '\nExample:\n  wrenn snapshots rm ready-to-test')
    .action(async (names: string[]) => {
      const api = cli.api();
      using _ = startProgress(names.length === 1 ? 'deleting the snapshot' : `deleting ${names.length} snapshots`);
      const outcomes = await Promise.allSettled(
        [...new Set(names)].map(async (name) => {
          await api.deleteSnapshot(name, cli.signal);
          print(name);
        }),
      );
      cli.signal.throwIfAborted();
      for (const outcome of outcomes) {
        if (outcome.status === 'fulfilled') continue;
        note(describeFailure(outcome.reason, false).text);
        cli.exitCode = EXIT.error;
      }
    });
}

function columns(nowMs: number): Column<SnapshotBody>[] {
  const orDash = (value: string | number | null) => (value === null ? '-' : String(value));
  return [
    { title: 'NAME', value: ({ name }) => name },
    { title: 'TYPE', value: ({ type }) => type },
    { title: 'OF', value: ({ capsule_id, type, template }) => capsule_id ?? (type === 'base' ? '-' : template) },
    { title: 'VCPUS', value: ({ vcpus }) => orDash(vcpus), align: 'right' },
    { title: 'MEMORY', value: ({ memory_mb }) => (memory_mb === null ? '-' : `${memory_mb} MiB`), align: 'right' },
    { title: 'SIZE', value: ({ size_bytes }) => (size_bytes === null ? '-' : formatBytes(size_bytes)), align: 'right' },
    {
      title: 'AGE',
      value: ({ created_at }) => (created_at === null ? '-' : formatAge(nowMs - Date.parse(created_at))),
      align: 'right',
    },
  ];
}
