import { styleText } from 'node:util';
import type { Command } from 'commander';
import type { VerifyBody } from '../api/sleep.ts';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, note, print, printJson } from '../cli.ts';
import { EXIT } from '../cli-error.ts';
import { formatBytes } from '../terminal/format.ts';
import { startProgress } from '../terminal/progress.ts';
import { type Column, formatTable } from '../terminal/table.ts';

const COLUMNS: Column<VerifyBody['files'][number]>[] = [
  { title: 'FILE', value: ({ name }) => name },
  { title: 'SIZE', value: ({ size_bytes }) => formatBytes(size_bytes), align: 'right' },
  {
    title: 'CONTENT',
    value: ({ problem }) =>
      problem === null ? 'as it was written' : styleText('red', problem, { stream: process.stdout }),
  },
];

export function addVerifyCommand(program: Command, cli: Cli): void {
  program
    .command('verify')
    .description('read every file of a sleeping capsule again and compare it with its checksum')
    .argument('<id>', 'a capsule that is asleep')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExits with 1 when something is damaged.\n\nExample:\n  wrenn verify cl-1a2b')
    .action(async (ref: string, options: { json?: boolean }) => {
      const api = cli.api();
      const id = await resolveCapsuleId(api, ref, cli.signal);
      using _ = startProgress('reading the snapshot');
      const report = await api.verifyCapsule(id, cli.signal);
      if (!report.ok) cli.exitCode = EXIT.error;
      if (options.json) return printJson(report);
      print(formatTable(COLUMNS, report.files));
      if (report.ok) return note(`Generation ${report.generation} of ${id} is whole.`);
      note(
        `Generation ${report.generation} of ${id} is damaged.\n  → \`wrenn resume --discard-memory ${id}\` boots its disk without its memory, if the disk is whole.`,
      );
    });
}
