import { execFile } from 'node:child_process';
import { constants, existsSync } from 'node:fs';
import { access, chmod, chown, mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import type { PostgresPrograms } from './programs.ts';
import type { SystemUser } from './system-user.ts';

const run = promisify(execFile);

const INITDB_TIMEOUT_MS = 120_000;

/** Superuser and database of the embedded server. */
export const DATABASE_USER = 'wrenn';

/**
 * Makes the data directory where there is none.
 *
 * @throws Error when it was made by another major version, or when the server's user cannot reach it.
 */
export async function ensureCluster(
  dataDir: string,
  programs: PostgresPrograms,
  user: SystemUser | undefined,
): Promise<void> {
  if (user) await requireReachable(dirname(dataDir), user);
  if (existsSync(dataDir)) return requireSameMajor(dataDir, programs);

  const partial = `${dataDir}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { mode: 0o700 });
  if (user) await chown(partial, user.uid, user.gid);
  await run(
    programs.initdb,
    [
      ...['--pgdata', partial, '--username', DATABASE_USER, '--encoding', 'UTF8', '--locale', 'C'],
      // Only the Unix socket is open, in a folder that nobody else may enter.
      ...['--auth-local', 'trust', '--auth-host', 'reject', '--no-instructions'],
    ],
    { ...user, cwd: '/', env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' }, timeout: INITDB_TIMEOUT_MS },
  );
  // Last, so that an interrupted initdb is never taken for a database.
  await rename(partial, dataDir);
}

async function requireSameMajor(dataDir: string, programs: PostgresPrograms): Promise<void> {
  const found = (await readFile(join(dataDir, 'PG_VERSION'), 'utf8')).trim();
  const wanted = programs.version.split('.')[0];
  if (found === wanted) return;
  throw new Error(
    `The database in ${dataDir} was made by PostgreSQL ${found}, and this version of Wrenn brings PostgreSQL ${wanted}. ` +
      `Dump it with the version of Wrenn that made it (its programs are still beside it), move ${dataDir} away, start ` +
      'this version once, and load the dump; or set DATABASE_URL to a server of your own.',
  );
}

/** Whether the server's user can pass through every folder above its own. */
async function requireReachable(dir: string, user: SystemUser): Promise<void> {
  for (let at = dir; at !== dirname(at); at = dirname(at)) {
    const { uid, gid, mode } = await stat(at);
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
    if ((mode & bit) === 0) {
      throw new Error(`The database's user may not pass through ${at}; run "chmod o+x ${at}", or move WRENN_DIR.`);
    }
  }
}

/** A folder for the server's socket that only root and the server's user may enter. */
export async function ensureSocketDir(dir: string, user: SystemUser | undefined): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  if (user) await chown(dir, user.uid, user.gid);
  else if ((await stat(dir)).uid !== process.getuid?.()) throw new Error(`${dir} belongs to another user.`);
  await chmod(dir, 0o700);
  await access(dir, constants.R_OK | constants.X_OK);
}
