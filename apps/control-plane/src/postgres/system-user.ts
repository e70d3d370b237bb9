import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

const NAME = 'wrenn-postgres';
const COMMAND_TIMEOUT_MS = 20_000;

/** Numeric user and group of a system user. */
export interface SystemUser {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The user that the server runs as: PostgreSQL refuses to run as root, so root gets the system user `wrenn-postgres`,
 * made here when it does not exist. Everyone else runs the server as themselves.
 */
export async function ensureServerUser(): Promise<SystemUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const found = await findUser();
  if (found) return found;
  const shell = '/usr/sbin/nologin';
  await run(
    'useradd',
    ['--system', '--user-group', '--no-create-home', '--home-dir', '/nonexistent', '--shell', shell, NAME],
    {
      timeout: COMMAND_TIMEOUT_MS,
    },
  ).catch((error: unknown) => {
    // Exit status 9: the name exists, so another start was quicker.
    if ((error as { code?: unknown }).code !== 9) {
      throw new Error(`The system user ${NAME}, which the database runs as, could not be made.`, { cause: error });
    }
  });
  const made = await findUser();
  if (!made) throw new Error(`The system user ${NAME} does not exist although useradd succeeded.`);
  return made;
}

async function findUser(): Promise<SystemUser | undefined> {
  try {
    const { stdout } = await run('getent', ['passwd', NAME], { timeout: COMMAND_TIMEOUT_MS });
    const [, , uid, gid] = stdout.split(':');
    return { uid: Number(uid), gid: Number(gid) };
  } catch (error) {
    // Exit status 2: no such entry.
    if ((error as { code?: unknown }).code === 2) return undefined;
    throw error;
  }
}
