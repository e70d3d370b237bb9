import type { AuditEntryBody } from '@wrenn/protocol/rest/audit';
import type { Command } from 'commander';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { formatInstant } from '../../terminal/format.ts';
import { type Column, formatTable } from '../../terminal/table.ts';
import { wholeNumber } from '../options.ts';

const PAGE_LENGTH = 200;

interface Options {
  readonly lines: number;
  readonly action?: string;
  readonly resource?: string;
  readonly actor?: string;
  readonly failed?: boolean;
  readonly json?: boolean;
}

export function addAuditCommand(program: Command, cli: Cli): void {
  program
    .command('audit')
    .description('show who did what in the team, newest first')
    .option('-n, --lines <count>', 'at most so many entries', wholeNumber(1), 50)
    .option('--action <names>', 'only these actions, with commas between')
    .option('--resource <types>', 'only what was done to these, with commas between: capsule, member, api_key …')
    .option('--actor <id>', 'only what this user or key did')
    .option('--failed', 'only what failed')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn audit -n 20\n  wrenn audit --resource capsule --action exec,pty')
    .action(async (options: Options) => {
      const entries = await readEntries(cli, options);
      if (options.json) return printJson(entries);
      if (entries.length === 0) return note('There are no such entries.');
      print(formatTable(COLUMNS, entries));
    });
}

async function readEntries(cli: Cli, options: Options): Promise<AuditEntryBody[]> {
  const api = cli.api();
  const entries: AuditEntryBody[] = [];
  let cursor: string | undefined;
  do {
    const page = await api.readAudit(
      {
        limit: String(Math.min(PAGE_LENGTH, options.lines - entries.length)),
        cursor,
        action: options.action,
        resource_type: options.resource,
        actor: options.actor,
        status: options.failed ? 'error' : undefined,
      },
      cli.signal,
    );
    entries.push(...page.items);
    cursor = page.next_cursor ?? undefined;
  } while (cursor !== undefined && entries.length < options.lines);
  return entries;
}

const COLUMNS: Column<AuditEntryBody>[] = [
  { title: 'WHEN', value: ({ created_at }) => formatInstant(created_at) },
  {
    title: 'WHO',
    value: ({ actor_name, actor_type }) => (actor_type === 'api_key' ? `key ${actor_name}` : actor_name),
  },
  { title: 'DID', value: ({ resource_type, action }) => `${resource_type} ${action}` },
  { title: 'TO', value: ({ resource_id }) => resource_id ?? '-' },
  { title: 'RESULT', value: ({ status }) => status },
  { title: 'FROM', value: ({ address }) => address ?? '-' },
  { title: 'DETAILS', value: ({ metadata }) => describe(metadata) },
];

function describe(metadata: Readonly<Record<string, unknown>>): string {
  return Object.entries(metadata)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' ');
}
