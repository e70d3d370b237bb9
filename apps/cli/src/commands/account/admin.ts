import { type Command, Option } from 'commander';
import type { AdminMail, AdminTeam, AdminUser } from '../../api/admin.ts';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { CliError } from '../../cli-error.ts';
import { readWrennDir } from '../../connection.ts';
import { formatAge } from '../../terminal/format.ts';
import { formatTable } from '../../terminal/table.ts';
import { runControlPlane } from '../../up/control-plane-command.ts';
import { wholeNumber } from '../options.ts';
import { findAnyTeam } from './any-team.ts';

interface MailOptions {
  readonly lines: number;
  readonly to?: string;
  readonly kind?: string;
  readonly token?: boolean;
  readonly json?: boolean;
}

export function addAdminCommands(program: Command, cli: Cli): void {
  const admin = program
    .command('admin')
    .description('run the platform: its administrators, accounts, teams and mails')
    .addHelpText('after', '\nExample:\n  wrenn admin create ada@example.com --name Ada\n  wrenn admin mails');
  addAdministratorCommands(admin, cli);
  addUserCommands(admin, cli);

  admin
    .command('teams')
    .description('list all teams')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const teams = await cli.loginApi().listAllTeams(cli.signal);
      if (options.json) return printJson(teams);
      print(
        formatTable(
          [
            { title: 'TEAM', value: ({ id }: AdminTeam) => id },
            { title: 'NAME', value: ({ name }) => name },
            { title: 'OWNER', value: ({ owner_email }) => owner_email ?? '-' },
            { title: 'MEMBERS', value: ({ member_count }) => String(member_count), align: 'right' },
            { title: 'CAPSULES', value: ({ active_sandbox_count }) => String(active_sandbox_count), align: 'right' },
            { title: 'STATUS', value: ({ deleted_at }) => (deleted_at ? 'deleted' : 'active') },
          ],
          teams,
        ),
      );
    });

  admin
    .command('byoc')
    .description('let a team bring its own hosts, for good; from then on its capsules run on no others')
    .argument('<team>', 'its id, or its name')
    .action(async (ref: string) => {
      const api = cli.loginApi();
      const { id, name } = await findAnyTeam(cli, api, ref);
      await api.enableByoc(id, cli.signal);
      print(`${name} may bring its own hosts`);
    });

  admin
    .command('mails')
    .description('list mails, newest first; without a mail server, pass their links on yourself')
    .option('-n, --lines <count>', 'look at so many', wholeNumber(1), 50)
    .option('--to <address>', 'only mails to this address')
    .option('--kind <kind>', 'only these: activation, password_reset, invitation …')
    .option('--token', 'print only the token of the newest link')
    .option('--json', 'print JSON')
    .action(async (options: MailOptions) => {
      const mails = (await cli.loginApi().listMails(options.lines, cli.signal)).filter(
        ({ to, kind }) =>
          (options.to === undefined || to.toLowerCase() === options.to.toLowerCase()) &&
          (options.kind === undefined || kind === options.kind),
      );
      if (options.token) return print(tokenOf(mails));
      if (options.json) return printJson(mails);
      if (mails.length === 0) return note('There are no such mails.');
      const now = Date.now();
      print(
        formatTable(
          [
            { title: 'MAIL', value: ({ id }: AdminMail) => id },
            { title: 'KIND', value: ({ kind }) => kind },
            { title: 'TO', value: ({ to }) => to },
            { title: 'STATUS', value: ({ status, error }) => (error ? `${status}: ${error}` : status) },
            { title: 'AGE', value: ({ created_at }) => formatAge(now - Date.parse(created_at)), align: 'right' },
            { title: 'LINK', value: ({ link }) => link ?? '-' },
          ],
          mails,
        ),
      );
    });
}

function addAdministratorCommands(admin: Command, cli: Cli): void {
  admin
    .command('create')
    .description('make an account that is an administrator, on the machine of the platform (needs root)')
    .argument('<email>')
    .option('-n, --name <name>', 'as others see it')
    .option('--password-stdin', 'read the password from the first line of stdin; default: print a link that sets one')
    .action((email: string, options: { name?: string; passwordStdin?: boolean }) =>
      runControlPlane(cli, readWrennDir(), [
        'admin',
        'create',
        email,
        ...(options.name ? ['--name', options.name] : []),
        ...(options.passwordStdin ? ['--password-stdin'] : []),
      ]),
    );
  for (const [name, is_admin, description] of [
    ['grant', true, 'make somebody an administrator'],
    ['revoke', false, 'make somebody an administrator no more'],
  ] as const) {
    admin
      .command(name)
      .description(description)
      .argument('<user>', 'e-mail address or id')
      .action(async (ref: string) => {
        const { id, email } = await findUser(cli, ref);
        await cli.loginApi().setUserAdmin(id, { admin: is_admin }, cli.signal);
        print(`${email} is ${is_admin ? 'an administrator' : 'no administrator any more'}`);
      });
  }
}

function addUserCommands(admin: Command, cli: Cli): void {
  admin
    .command('users')
    .description('list all accounts')
    .addOption(new Option('-s, --status <status>', 'only these').choices(['inactive', 'active', 'disabled', 'deleted']))
    .option('--json', 'print JSON')
    .action(async (options: { status?: string; json?: boolean }) => {
      const all = await cli.loginApi().listAllUsers(cli.signal);
      const users = all.filter(({ status }) => options.status === undefined || status === options.status);
      if (options.json) return printJson(users);
      const now = Date.now();
      print(
        formatTable(
          [
            { title: 'USER', value: ({ id }: AdminUser) => id },
            { title: 'NAME', value: ({ name }) => name },
            { title: 'E-MAIL', value: ({ email }) => email },
            { title: 'STATUS', value: ({ status, is_admin }) => (is_admin ? `${status}, administrator` : status) },
            { title: 'TEAMS', value: ({ teams_joined }) => String(teams_joined), align: 'right' },
            {
              title: 'LAST LOGIN',
              value: ({ last_login_at }) => (last_login_at ? formatAge(now - Date.parse(last_login_at)) : 'never'),
              align: 'right',
            },
          ],
          users,
        ),
      );
    });
  for (const [name, active, description] of [
    ['disable', false, 'end all access of an account, and the capsules of teams that it owns'],
    ['enable', true, 'let a disabled account log in again'],
  ] as const) {
    admin
      .command(name)
      .description(description)
      .argument('<user>', 'e-mail address or id')
      .action(async (ref: string) => {
        const { id, email } = await findUser(cli, ref);
        await cli.loginApi().setUserActive(id, { active }, cli.signal);
        print(`${email} is ${active ? 'active' : 'disabled'}`);
      });
  }
  admin
    .command('restore')
    .description('bring back an account that was deleted less than 15 days ago')
    .argument('<user>', 'e-mail address or id')
    .action(async (ref: string) => {
      const { id, email } = await findUser(cli, ref);
      await cli.loginApi().restoreUser(id, cli.signal);
      print(`${email} is active`);
    });
}

async function findUser(cli: Cli, ref: string): Promise<AdminUser> {
  const users = await cli.loginApi().listAllUsers(cli.signal);
  const user = users.find(({ id, email }) => id === ref || email.toLowerCase() === ref.toLowerCase());
  if (!user) throw new CliError(`There is no account ${ref}.`, '`wrenn admin users` lists them.');
  return user;
}

function tokenOf(mails: readonly AdminMail[]): string {
  const link = mails.find((mail) => mail.link !== null)?.link;
  if (!link) throw new CliError('There is no such mail with a link that works.', '`wrenn admin mails` lists all.');
  const { searchParams, pathname } = new URL(link, 'http://localhost');
  return searchParams.get('token') ?? pathname.split('/').at(-1) ?? '';
}
