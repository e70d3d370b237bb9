import type { Command } from 'commander';
import { type Cli, note, print, printJson } from '../../cli.ts';
import { CliError } from '../../cli-error.ts';
import { readBaseUrl } from '../../connection.ts';
import { forgetLogin, saveLogin } from '../../login/saved-logins.ts';
import { ask, askSecret, readPassword } from '../../terminal/ask.ts';
import { formatAge } from '../../terminal/format.ts';
import { formatFacts, formatTable } from '../../terminal/table.ts';

export function addAccountCommands(program: Command, cli: Cli): void {
  program
    .command('whoami')
    .description('show who the next commands act as, and in which team')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn whoami')
    .action(async (options: { json?: boolean }) => {
      const me = await cli.loginApi().me(cli.signal);
      if (options.json) return printJson(me);
      const team = (await cli.loginApi().listTeams(cli.signal)).find(({ id }) => id === me.team_id);
      print(
        formatFacts([
          ['name', me.name],
          ['e-mail', me.email],
          ['team', team ? `${team.name} (${team.id}), as ${me.role}` : 'none: `wrenn team create` makes one'],
          ['platform', me.is_admin ? 'administrator' : 'user'],
          [
            'log in by',
            [me.has_password ? 'password' : [], me.providers, me.passkeys ? 'passkey' : []].flat().join(', '),
          ],
          ['second factor', me.two_factor ? 'on' : 'off'],
        ]),
      );
    });

  const account = program
    .command('account')
    .description('your account: name, password, second factor, logins')
    .addHelpText('after', '\nExample:\n  wrenn account two-factor on\n  wrenn account sessions');

  account
    .command('rename')
    .description('change your name')
    .argument('<name>')
    .action(async (name: string) => {
      const api = cli.loginApi();
      saveLogin(api.connection.baseUrl, await api.rename(name, cli.signal));
      print(name);
    });

  account
    .command('password')
    .description('change your password; all other logins end')
    .action(async () => {
      const api = cli.loginApi();
      const { has_password } = await api.me(cli.signal);
      const current = has_password ? await askSecret(cli, 'Current password:', 'a terminal') : undefined;
      const password = await askSecret(cli, 'New password:', 'a terminal');
      if ((await askSecret(cli, 'New password again:', 'a terminal')) !== password) {
        throw new CliError('The two new passwords are not the same.', 'Nothing was changed. Try again.');
      }
      const proof = current === undefined ? { confirm_password: password } : { current_password: current };
      await api.changePassword({ new_password: password, ...proof }, cli.signal);
      print('the password is changed');
    });

  account
    .command('reset-password')
    .description('ask for a new password, or set it with the token of the mail')
    .option('-e, --email <address>', 'address of the account: gets a mail')
    .option('-t, --token <token>', 'from that mail')
    .option('--password-stdin', 'read the new password from the first line of stdin')
    .action(async (options: { email?: string; token?: string; passwordStdin?: boolean }) => {
      const api = cli.anonymousApi();
      if (options.token !== undefined) {
        const password = await readPassword(cli, 'New password:', options.passwordStdin);
        await api.confirmPasswordReset(options.token, password, cli.signal);
        return print('the password is set; log in with `wrenn login`');
      }
      await api.requestPasswordReset(options.email ?? (await ask(cli, 'E-mail address:', '--email')), cli.signal);
      print('if there is an account of that address, a mail is on its way to it');
    });

  addTwoFactorCommands(account, cli);

  const logins = account
    .command('sessions')
    .description('list where you are logged in')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const sessions = await cli.loginApi().listSessions(cli.signal);
      if (options.json) return printJson(sessions);
      const now = Date.now();
      print(
        formatTable(
          [
            { title: 'SESSION', value: ({ id, current }) => (current ? `${id} *` : id) },
            { title: 'BY', value: ({ method }) => method },
            { title: 'FROM', value: ({ address }) => address ?? '-' },
            { title: 'WITH', value: ({ user_agent }) => (user_agent ?? '-').slice(0, 40) },
            {
              title: 'LAST SEEN',
              value: ({ last_seen_at }) => formatAge(now - Date.parse(last_seen_at)),
              align: 'right',
            },
          ],
          sessions,
        ),
      );
    });
  logins
    .command('revoke')
    .description('end a login, or all others')
    .argument('[id]', 'of the session; default: all but this one')
    .action(async (id: string | undefined) => {
      await cli.loginApi().revokeSession(id, cli.signal);
      print(id ?? 'all other logins have ended');
    });

  account
    .command('delete')
    .description('delete your account, and the teams that only you are in')
    .option('--confirm <address>', 'your e-mail address, to say that you mean it')
    .action(async (options: { confirm?: string }) => {
      const confirmation = options.confirm ?? (await ask(cli, 'Write your e-mail address to delete it:', '--confirm'));
      await cli.loginApi().deleteAccount(confirmation, cli.signal);
      forgetLogin(readBaseUrl());
      print('the account is deleted');
      note('For 15 days an administrator can bring it back; then it is gone for good.');
    });
}

function addTwoFactorCommands(account: Command, cli: Cli): void {
  const twoFactor = account.command('two-factor').description('turn the second factor on or off');
  twoFactor
    .command('on')
    .description('ask for a code of an authenticator at each login')
    .action(async () => {
      const api = cli.loginApi();
      const { secret, otpauth_uri } = await api.beginTwoFactor(cli.signal);
      note(`Add this to your authenticator:\n  ${otpauth_uri}\n  or by hand: ${secret}`);
      const codes = await api.confirmTwoFactor(await ask(cli, 'Code that it shows:', 'a terminal'), cli.signal);
      note('Keep these recovery codes somewhere else; each works once:');
      for (const code of codes) print(code);
    });
  twoFactor
    .command('off')
    .description('log in by password alone')
    .option('--code <code>', 'of the authenticator, or a recovery code')
    .action(async (options: { code?: string }) => {
      const code = options.code ?? (await ask(cli, 'Code of the authenticator, or a recovery code:', '--code'));
      await cli.loginApi().endTwoFactor(code, cli.signal);
      print('the second factor is off');
    });
}
