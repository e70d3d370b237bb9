import { type ApiKeyBody, KEY_SCOPES, type KeyScope } from '@wrenn/protocol/rest/api-keys';
import { type Command, Option } from 'commander';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { CliError } from '../../cli-error.ts';
import { formatAge, formatSpan } from '../../terminal/format.ts';
import { formatTable } from '../../terminal/table.ts';
import { wholeNumber } from '../options.ts';

interface CreateOptions {
  readonly scope?: string[];
  readonly owner?: 'team' | 'user';
  readonly expires?: number;
  readonly json?: boolean;
}

export function addKeyCommands(program: Command, cli: Cli): void {
  const key = program
    .command('key')
    .description('API keys of the team, and your own')
    .addHelpText('after', '\nExample:\n  wrenn key create ci --scope capsules:read capsules:write');

  key
    .command('create')
    .description('make a key; it is printed now and never again')
    .argument('[name]', 'to tell keys apart', 'Unnamed API Key')
    .option('-s, --scope <scope...>', `what it may do: ${KEY_SCOPES.join(', ')}; default: all of it`)
    .addOption(
      new Option('-o, --owner <owner>', 'whose it is; default: the team for admins, else you').choices([
        'team',
        'user',
      ]),
    )
    .option('--expires <days>', 'after how many days it ends; default: never', wholeNumber(1))
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn key create ci --scope capsules:read capsules:write capsules:access')
    .action(async (name: string, options: CreateOptions) => {
      const created = await cli.loginApi().createKey(
        {
          name,
          scopes: options.scope?.map(toScope) ?? null,
          expires_in_days: options.expires ?? null,
          ...(options.owner ? { owner: options.owner } : {}),
        },
        cli.signal,
      );
      if (options.json) return printJson(created);
      print(created.key ?? '');
      note('Set it as WRENN_API_KEY. It is not shown again.');
    });

  key
    .command('ls')
    .description('list keys')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const keys = await cli.loginApi().listKeys(cli.signal);
      if (options.json) return printJson(keys);
      if (keys.length === 0) return note('There are none. `wrenn key create` makes one.');
      const now = Date.now();
      print(
        formatTable(
          [
            { title: 'KEY', value: ({ id }: ApiKeyBody) => id },
            { title: 'NAME', value: ({ name }) => name },
            { title: 'BEGINS', value: ({ key_prefix }) => key_prefix },
            {
              title: 'OWNER',
              value: ({ owner, creator_email }) => (owner === 'team' ? 'team' : (creator_email ?? 'user')),
            },
            { title: 'SCOPES', value: ({ scopes }) => scopes?.join(' ') ?? 'all' },
            {
              title: 'LAST USED',
              value: ({ last_used }) => (last_used ? formatAge(now - Date.parse(last_used)) : 'never'),
              align: 'right',
            },
            {
              title: 'ENDS IN',
              value: ({ expires_at }) => (expires_at ? formatSpan(Date.parse(expires_at) - now) : '-'),
              align: 'right',
            },
          ],
          keys,
        ),
      );
    });

  key
    .command('revoke')
    .description('end keys, at once')
    .argument('<id...>')
    .action(async (ids: string[]) => {
      const api = cli.loginApi();
      for (const id of ids) {
        await api.revokeKey(id, cli.signal);
        print(id);
      }
    });
}

function toScope(text: string): KeyScope {
  const scope = KEY_SCOPES.find((known) => known === text);
  if (!scope) throw new CliError(`${text} is not a scope.`, `There are: ${KEY_SCOPES.join(', ')}.`);
  return scope;
}
