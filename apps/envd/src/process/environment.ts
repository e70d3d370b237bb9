import { WrennError } from '@wrenn/protocol/errors';
import type { GuestState } from '../guest-state.ts';
import type { Account } from '../users/accounts.ts';

/** PATH of a login on Debian. In the guest, envd's own PATH holds its private programs and is not for others. */
const LOGIN_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** A login environment, then the defaults of `/init`, then what the request sets; later ones win. */
export function processEnvironment(
  account: Account,
  state: GuestState,
  requested: Readonly<Record<string, string>>,
  options: { guest: boolean; terminal: boolean },
): Record<string, string> {
  const environment: Record<string, string> = {
    PATH: options.guest ? LOGIN_PATH : (process.env.PATH ?? LOGIN_PATH),
    HOME: account.home,
    USER: account.name,
    LOGNAME: account.name,
    SHELL: account.shell,
    ...(options.terminal ? { TERM: 'xterm-256color' } : {}),
    ...Object.fromEntries(state.environment),
  };
  for (const [name, value] of Object.entries(requested)) {
    checkEnvironmentVariable(name, value);
    environment[name] = value;
  }
  return environment;
}

/** Fails with `invalid_request` on what the kernel cannot carry. */
export function checkEnvironmentVariable(name: string, value: string): void {
  if (name === '' || name.includes('=') || name.includes('\0') || value.includes('\0')) {
    throw new WrennError('invalid_request', {
      problem: `${JSON.stringify(name)} is not a usable environment variable`,
    });
  }
}
