import type { ProcessInfoBody } from '@wrenn/protocol/rest/exec';
import type { Command } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, note, print, printJson } from '../cli.ts';
import { type Column, formatTable } from '../terminal/table.ts';

const COLUMNS: Column<ProcessInfoBody>[] = [
  { title: 'PID', value: ({ pid }) => String(pid), align: 'right' },
  { title: 'TAG', value: ({ tag }) => tag ?? '-' },
  { title: 'COMMAND', value: ({ cmd, args }) => [cmd, ...args].join(' ') },
];

export function addPsCommand(program: Command, cli: Cli): void {
  program
    .command('ps')
    .description('list the commands that were started in a capsule and still run')
    .argument('<id>', 'the capsule')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExample:\n  wrenn ps cl-1a2b\n\n`wrenn exec <id> -- ps aux` shows every process of the guest.',
    )
    .action(async (ref: string, options: { json?: boolean }) => {
      const api = cli.api();
      const id = await resolveCapsuleId(api, ref, cli.signal);
      const processes = await api.listProcesses(id, cli.signal);
      if (options.json) return printJson(processes);
      if (processes.length === 0) return note('No command runs there.');
      print(formatTable(COLUMNS, processes));
    });
}
