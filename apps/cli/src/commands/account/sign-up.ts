import type { Command } from 'commander';
import { type Cli, note, print } from '../../cli.ts';
import { logInWithProvider } from '../../login/provider-login.ts';
import { keepLogin } from '../../login/second-factor.ts';
import { ask, readPassword } from '../../terminal/ask.ts';

interface SignUpOptions {
  readonly email?: string;
  readonly name?: string;
  readonly provider?: string;
  readonly invitation?: string;
  readonly passwordStdin?: boolean;
}

export function addSignUpCommands(program: Command, cli: Cli): void {
  program
    .command('signup')
    .description('make an account')
    .option('-e, --email <address>', 'address of the account')
    .option('-n, --name <name>', 'your name, as others see it')
    .option('-p, --provider <id>', 'sign up through a provider in a browser: github, google, oidc')
    .option('-i, --invitation <token>', 'token of an invitation to a team')
    .option('--password-stdin', 'read the password from the first line of stdin')
    .addHelpText('after', '\nExample:\n  wrenn signup --email ada@example.com --name Ada')
    .action(async (options: SignUpOptions) => {
      const { provider, invitation } = options;
      if (provider !== undefined) {
        const api = cli.anonymousApi();
        return keepLogin(api, await logInWithProvider(cli, api, { provider, intent: 'signup', invitation }));
      }
      const email = options.email ?? (await ask(cli, 'E-mail address:', '--email'));
      const name = options.name ?? (await ask(cli, 'Your name:', '--name'));
      const password = await readPassword(cli, 'Password (at least 8 characters):', options.passwordStdin);
      print(
        await cli.anonymousApi().signUp({ email, name, password, ...(invitation ? { invitation } : {}) }, cli.signal),
      );
      note('Then: wrenn activate <token>');
    });

  program
    .command('activate')
    .description('activate an account with the token of the activation mail, and log in')
    .argument('<token>', 'from the mail, or from the administrator (`wrenn admin mails`)')
    .addHelpText('after', '\nExample:\n  wrenn activate 5uT0…')
    .action(async (token: string) => {
      const api = cli.anonymousApi();
      keepLogin(api, await api.activate(token, cli.signal));
    });
}
