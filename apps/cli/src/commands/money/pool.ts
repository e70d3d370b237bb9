import type { PoolBody } from '@wrenn/protocol/rest/usage';
import { type Command, InvalidArgumentError } from 'commander';
import { type Cli, print, printJson } from '../../cli.ts';
import { formatTable } from '../../terminal/table.ts';
import { findAnyTeam } from '../account/any-team.ts';
import { teamIdOf, teamOption } from '../account/team.ts';
import { parseSizeMb, wholeNumber } from '../options.ts';

type Limit = number | 'none';

interface SetOptions {
  readonly vcpus: Limit;
  readonly memory: Limit;
  readonly disk: Limit;
  readonly json?: boolean;
}

export function addPoolCommands(program: Command, cli: Cli): void {
  const pool = program
    .command('pool')
    .description('what the team has bought, which its capsules share')
    .addHelpText(
      'after',
      '\nExample:\n  wrenn pool show\n  wrenn pool set research --vcpus 64 --memory 256G --disk none',
    );

  pool
    .command('show')
    .description('show what the team may use and what its capsules hold of it now')
    .addOption(teamOption())
    .option('--json', 'print JSON')
    .action(async (options: { team?: string; json?: boolean }) => {
      const api = cli.loginApi();
      const found = await api.getPool(await teamIdOf(cli, api, options.team), cli.signal);
      if (options.json) return printJson(found);
      printPool(found);
    });

  pool
    .command('set')
    .description('set what a team may use, as an administrator of the platform; capsules that run stay')
    .argument('<team>', 'its id, or its name')
    .requiredOption('--vcpus <count>', 'or none, for no limit', orNone(wholeNumber(0)))
    .requiredOption('--memory <size>', 'as 512M or 256G, or none', orNone(sizeOrZero))
    .requiredOption('--disk <size>', 'as 100G, or none', orNone(sizeOrZero))
    .option('--json', 'print JSON')
    .action(async (ref: string, { vcpus, memory, disk, json }: SetOptions) => {
      const api = cli.loginApi();
      const request = { vcpus: toLimit(vcpus), memory_mb: toLimit(memory), disk_mb: toLimit(disk) };
      const { id } = await findAnyTeam(cli, api, ref);
      const made = await api.setPool(id, request, cli.signal);
      if (json) return printJson(made);
      printPool(made);
    });
}

function printPool({ limits, used }: PoolBody): void {
  const mib = (value: number) => `${value} MiB`;
  const rows = [
    { name: 'vCPUs', limit: limits.vcpus, used: used.vcpus, show: String },
    { name: 'memory', limit: limits.memory_mb, used: used.memory_mb, show: mib },
    { name: 'disk', limit: limits.disk_mb, used: used.disk_mb, show: mib },
  ];
  print(
    formatTable(
      [
        { title: 'OF', value: ({ name }) => name },
        { title: 'USED', value: (row) => row.show(row.used), align: 'right' },
        {
          title: 'FREE',
          // Less than what is used may have been bought since.
          value: ({ limit, show, ...row }) => (limit === null ? '-' : show(Math.max(0, limit - row.used))),
          align: 'right',
        },
        { title: 'LIMIT', value: ({ limit, show }) => (limit === null ? 'none' : show(limit)), align: 'right' },
      ],
      rows,
    ),
  );
}

function toLimit(given: Limit): number | null {
  return given === 'none' ? null : given;
}

function orNone(parse: (text: string) => number): (text: string) => Limit {
  return (text) => (text === 'none' ? 'none' : parse(text));
}

function sizeOrZero(text: string): number {
  try {
    return text === '0' ? 0 : parseSizeMb(text);
  } catch {
    throw new InvalidArgumentError('Write a number of MiB, a size such as 512M or 2G, or none.');
  }
}
