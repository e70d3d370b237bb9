import type { UsageBody, UsageFigures } from '@wrenn/protocol/rest/usage';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { UsageRequest } from '../../api/usage.ts';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { CliError, EXIT } from '../../cli-error.ts';
import { formatBytes, formatSpan } from '../../terminal/format.ts';
import { type Column, formatTable } from '../../terminal/table.ts';
import { teamIdOf, teamOption } from '../account/team.ts';

type Grouping = 'day' | 'capsule' | 'label';

interface Options {
  readonly from?: string;
  readonly to?: string;
  readonly by?: Grouping;
  readonly label?: string;
  readonly team?: string;
  readonly allTeams?: boolean;
  readonly csv?: boolean;
  readonly json?: boolean;
}

/** A line of the table. */
interface Row {
  readonly name: string;
  readonly figures: UsageFigures;
}

export function addUsageCommand(program: Command, cli: Cli): void {
  program
    .command('usage')
    .description('show what the capsules of the team used, and what it costs')
    .option('--from <day>', 'first day, UTC, as 2026-03-01; default: 29 days ago', parseDay)
    .option('--to <day>', 'last day; default: today, until now', parseDay)
    .addOption(new Option('--by <what>', 'a line for each; default: day').choices(['day', 'capsule', 'label']))
    .option('--label <key>', 'a line for each value of this label')
    .addOption(teamOption())
    .option('--all-teams', 'a line for each team, as an administrator of the platform')
    .addOption(new Option('--csv', 'print CSV, with all figures').conflicts('json'))
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn usage --by capsule\n  wrenn usage --label customer --csv > usage.csv')
    .action((options: Options) => (options.allTeams ? showAllTeams(cli, options) : showTeam(cli, options)));
}

async function showTeam(cli: Cli, options: Options): Promise<void> {
  const by = options.by ?? (options.label === undefined ? 'day' : 'label');
  if ((by === 'label') !== (options.label !== undefined)) {
    throw new CliError('--by label and --label <key> belong together.', 'Say which label with --label <key>.', {
      exitCode: EXIT.usage,
    });
  }
  const request: UsageRequest = { ...daysOf(options), group_by: by, ...(options.label && { label: options.label }) };
  const api = options.team === undefined ? cli.api() : cli.loginApi();
  const teamId = options.team === undefined ? undefined : await teamIdOf(cli, api, options.team);
  if (options.csv) return printCsv(await api.readUsageCsv(request, teamId, cli.signal));
  const usage = await api.readUsage(request, teamId, cli.signal);
  if (options.json) return printJson(usage);
  const rows = usage.points.map((point) => ({ name: nameOf(point, by), figures: point }));
  printTable(by === 'label' ? (options.label ?? '') : by, rows, usage);
}

async function showAllTeams(cli: Cli, options: Options): Promise<void> {
  if (options.by !== undefined || options.label !== undefined || options.team !== undefined) {
    throw new CliError('--all-teams goes with --from and --to only.', 'Leave --by, --label and --team out.', {
      exitCode: EXIT.usage,
    });
  }
  const api = cli.loginApi();
  if (options.csv) return printCsv(await api.readUsageOfAllCsv(daysOf(options), cli.signal));
  const usage = await api.readUsageOfAll(daysOf(options), cli.signal);
  if (options.json) return printJson(usage);
  const rows = usage.teams.map((team) => ({ name: team.team_name ?? team.team_id, figures: team }));
  printTable('team', rows, usage);
}

function daysOf({ from, to }: Options): Pick<UsageRequest, 'from' | 'to'> {
  return { ...(from && { from }), ...(to && { to }) };
}

function nameOf(point: UsageBody['points'][number], by: Grouping): string {
  switch (by) {
    case 'day':
      return point.date ?? '-';
    case 'capsule':
      return point.capsule_id ?? '-';
    case 'label':
      return point.label ?? '(none)';
  }
}

function printTable(
  title: string,
  rows: readonly Row[],
  { from, to, total }: Pick<UsageBody, 'from' | 'to' | 'total'>,
) {
  const used = rows.filter(({ figures }) => isAny(figures));
  if (used.length === 0) return note(`Nothing was used from ${from} to ${to}.`);
  print(formatTable(columns(title.toUpperCase(), total.currency), [...used, { name: 'total', figures: total }]));
  note(`${from} to ${to}, days of UTC.`);
}

function isAny({ vcpu_seconds, memory_mb_seconds, disk_mb_seconds, egress_bytes }: UsageFigures): boolean {
  return vcpu_seconds + memory_mb_seconds + disk_mb_seconds + egress_bytes > 0;
}

function columns(title: string, currency: string | null): Column<Row>[] {
  return [
    { title, value: ({ name }) => name },
    { title: 'VCPU TIME', value: ({ figures }) => formatSpan(figures.vcpu_seconds * 1000), align: 'right' },
    { title: 'MEMORY', value: ({ figures }) => formatGibHours(figures.memory_mb_seconds), align: 'right' },
    { title: 'DISK', value: ({ figures }) => formatGibHours(figures.disk_mb_seconds), align: 'right' },
    { title: 'EGRESS', value: ({ figures }) => formatBytes(figures.egress_bytes), align: 'right' },
    {
      title: 'COST',
      value: ({ figures: { cost } }) => (cost === null ? '-' : `${cost.toFixed(2)} ${currency ?? ''}`.trimEnd()),
      align: 'right',
    },
  ];
}

/** What is more than nothing does not look like nothing. */
function formatGibHours(mbSeconds: number): string {
  const hours = mbSeconds / 1024 / 3600;
  return hours > 0 && hours < 0.005 ? '<0.01 GiB·h' : `${hours.toFixed(2)} GiB·h`;
}

/** Its lines end as CSV asks for, and no other is added. */
function printCsv(csv: string): void {
  process.stdout.write(csv);
}

function parseDay(text: string): string {
  const date = new Date(`${text}T00:00:00Z`);
  if (/^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(date.getTime())) return text;
  throw new InvalidArgumentError('Write a day as 2026-03-01.');
}
