import type { BudgetBody } from '@wrenn/protocol/rest/usage';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { formatFacts } from '../../terminal/table.ts';
import { teamIdOf, teamOption } from '../account/team.ts';
import { wholeNumber } from '../options.ts';

interface SetOptions {
  readonly warnAt?: number;
  readonly onExceeded?: BudgetBody['on_exceeded'];
  readonly team?: string;
  readonly json?: boolean;
}

export function addBudgetCommands(program: Command, cli: Cli): void {
  const budget = program
    .command('budget')
    .description('what the team may spend in a month')
    .addHelpText('after', '\nExample:\n  wrenn budget set 200 --warn-at 75\n  wrenn budget show');

  budget
    .command('show')
    .description('show the budget, and what of it is spent')
    .addOption(teamOption())
    .option('--json', 'print JSON')
    .action(async (options: { team?: string; json?: boolean }) => {
      const api = cli.loginApi();
      const found = await api.getBudget(await teamIdOf(cli, api, options.team), cli.signal);
      if (options.json) return printJson(found);
      printBudget(found);
    });

  budget
    .command('set')
    .description('set what the team may spend in a calendar month (UTC); what is not named stays as it is')
    .argument('<amount>', 'in the currency of the prices; none: no budget', parseAmount)
    .option('--warn-at <percent>', 'mail and events when so much is spent', wholeNumber(1))
    .addOption(
      new Option('--on-exceeded <what>', 'sleep: capsules are paused, and none starts; warn: only say it').choices([
        'sleep',
        'warn',
      ]),
    )
    .addOption(teamOption())
    .option('--json', 'print JSON')
    .action(async (amount: number | 'none', options: SetOptions) => {
      const api = cli.loginApi();
      const teamId = await teamIdOf(cli, api, options.team);
      const { warn_at_pct, on_exceeded } = await api.getBudget(teamId, cli.signal);
      const made = await api.setBudget(
        teamId,
        {
          monthly: amount === 'none' ? null : amount,
          warn_at_pct: options.warnAt ?? warn_at_pct,
          on_exceeded: options.onExceeded ?? on_exceeded,
        },
        cli.signal,
      );
      if (options.json) return printJson(made);
      printBudget(made);
    });
}

function printBudget({ monthly, currency, spent, month, state, warn_at_pct, on_exceeded }: BudgetBody): void {
  const money = (value: number) => `${value.toFixed(2)} ${currency ?? ''}`.trimEnd();
  const ofBudget =
    monthly !== null && spent !== null && monthly > 0 ? ` (${((spent / monthly) * 100).toFixed(1)}%)` : '';
  print(
    formatFacts([
      ['Budget', monthly === null ? 'none' : `${money(monthly)} a month`],
      ['Month', month.slice(0, 7)],
      ['Spent', spent === null ? 'unknown: the platform has no prices' : `${money(spent)}${ofBudget}`],
      ...(monthly === null
        ? []
        : ([
            ['State', state],
            ['Warns at', `${warn_at_pct}%`],
            ['Exceeded', on_exceeded === 'sleep' ? 'capsules are paused, and none starts' : 'only a warning'],
          ] as const)),
    ]),
  );
  if (monthly !== null && spent === null) note('A budget has no effect as long as the platform has no prices.');
}

function parseAmount(text: string): number | 'none' {
  if (text === 'none') return 'none';
  const amount = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && Number.isFinite(amount)) return amount;
  throw new InvalidArgumentError('Write an amount such as 200 or 49.90, or none.');
}
