import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { WrennError } from '@wrenn/protocol/errors';
import type { Account } from '../users/accounts.ts';

/** How to execute a program as an account. */
export interface LaunchPlan {
  readonly file: string;
  readonly args: readonly string[];
  readonly argv0: string;
  /** User and group that the spawning call itself switches to, where a helper does not. */
  readonly credentials: { uid: number; gid: number } | undefined;
}

const BUNDLED_SETPRIV = '/opt/wrenn/bin/setpriv';
const BUNDLED_LIBRARIES = '/opt/wrenn/lib';
const BUNDLED_LOADER = `${BUNDLED_LIBRARIES}/ld.so`;

/**
 * The spawning calls of Node and node-pty can set a user and a group but not supplementary groups: Node's drops them all,
 * node-pty's keeps envd's own, root's. Where either would be wrong, setpriv does the switch.
 *
 * @param path where the program lies
 * @param command what the user called it, which is its argv[0]
 */
export function planLaunch(
  command: string,
  path: string,
  args: readonly string[],
  account: Account,
  spawner: 'pipes' | 'terminal',
): LaunchPlan {
  const own = process.getuid?.() ?? 0;
  if (own === account.uid) return { file: path, args, argv0: command, credentials: undefined };
  if (own !== 0) {
    throw new WrennError('command_not_found', {
      command,
      problem: `envd does not run as root, so it cannot start programs as ${account.name}`,
    });
  }
  if (spawner === 'pipes' && account.supplementaryGids.length === 0) {
    return { file: path, args, argv0: command, credentials: { uid: account.uid, gid: account.gid } };
  }
  const [file, ...prefix] = setprivCommand(command);
  const groups =
    account.supplementaryGids.length === 0 ? '--clear-groups' : `--groups=${account.supplementaryGids.join()}`;
  return {
    file,
    args: [...prefix, `--reuid=${account.uid}`, `--regid=${account.gid}`, groups, '--', command, ...args],
    argv0: file,
    credentials: undefined,
  };
}

let setpriv: readonly [string, ...string[]] | undefined;

function setprivCommand(command: string): readonly [string, ...string[]] {
  setpriv ??= findSetpriv();
  if (setpriv === undefined) {
    throw new WrennError('command_not_found', { command, problem: 'setpriv (Debian: util-linux) is not installed' });
  }
  return setpriv;
}

function findSetpriv(): readonly [string, ...string[]] | undefined {
  if (existsSync(BUNDLED_SETPRIV)) {
    // The bundled program needs the bundled libraries, unless what lies there is a script that sees to it.
    if (!isElf(BUNDLED_SETPRIV) || !existsSync(BUNDLED_LOADER)) return [BUNDLED_SETPRIV];
    return [BUNDLED_LOADER, '--library-path', BUNDLED_LIBRARIES, BUNDLED_SETPRIV];
  }
  const system = ['/usr/bin/setpriv', '/bin/setpriv'].find((path) => existsSync(path));
  return system === undefined ? undefined : [system];
}

function isElf(path: string): boolean {
  const head = Buffer.alloc(4);
  const fd = openSync(path, 'r');
  try {
    readSync(fd, head);
  } finally {
    closeSync(fd);
  }
  return head.toString('latin1') === '\x7fELF';
}
