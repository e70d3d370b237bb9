import type { Command } from 'commander';
import { type Cli, note, print } from '../../cli.ts';
import { readBaseUrl } from '../../connection.ts';
import { logInWithProvider } from '../../login/provider-login.ts';
import { forgetLogin, readLogin } from '../../login/saved-logins.ts';
import { keepLogin, withSecondFactor } from '../../login/second-factor.ts';
import { ask, readPassword } from '../../terminal/ask.ts';

export function addLoginCommands(program: Command, cli: Cli): void {
  program
    .command('login')
    .description('log in; the next commands act as you, in your team')
    .option('-e, --email <address>', 'address of the account')
    .option('--password-stdin', 'read the password from the first line of stdin')
    .option('-p, --provider <id>', 'log in through a provider in a browser: github, google, oidc')
    .option('--code <code>', 'code of the authenticator, where the account asks for one')
    .addHelpText('after', '\nExample:\n  wrenn login --email ada@example.com\n  wrenn login --provider github')
    .action(async (options: { email?: string; provider?: string; passwordStdin?: boolean; code?: string }) => {
      const api = cli.anonymousApi();
      const { provider } = options;
      if (provider !== undefined) {
        const begin = () => logInWithProvider(cli, api, { provider, intent: 'login' });
        return keepLogin(api, await withSecondFactor(cli, api, options.code, begin));
      }
      const email = options.email ?? (await ask(cli, 'E-mail address:', '--email'));
      const password = await readPassword(cli, 'Password:', options.passwordStdin);
      keepLogin(api, await withSecondFactor(cli, api, options.code, () => api.login(email, password, cli.signal)));
    });

  program
    .command('logout')
    .description('end the login of this machine')
    .option('--all', 'and all others of the account')
    .addHelpText('after', '\nExample:\n  wrenn logout')
    .action(async (options: { all?: boolean }) => {
      const baseUrl = readBaseUrl();
      if (!readLogin(baseUrl)) {
        forgetLogin(baseUrl);
        return note('You are not logged in.');
      }
      const api = cli.loginApi();
      if (options.all) await api.revokeSession(undefined, cli.signal);
      await api.logout(cli.signal);
      forgetLogin(baseUrl);
      print('logged out');
    });
}
