import { chown, mkdir, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf, fileError } from '../errors.ts';
import type { Account } from './accounts.ts';

/**
 * The absolute path that a user means. As in E2B's protocol: an empty path is the default working directory, `~` and
 * relative paths start at the user's home.
 */
export function resolveUserPath(path: string, account: Account, defaultWorkdir: string | undefined): string {
  const wanted = path === '' ? (defaultWorkdir ?? '') : path;
  if (wanted.includes('\0')) throw new WrennError('invalid_request', { problem: 'a path holds a NUL character' });
  if (wanted === '~' || wanted.startsWith('~/')) return join(account.home, wanted.slice(1));
  if (wanted.startsWith('~')) {
    throw new WrennError('invalid_request', { problem: `${wanted} names another user's home; give its full path` });
  }
  return isAbsolute(wanted) ? resolve(wanted) : resolve(account.home, wanted);
}

/** Gives a new file or directory to a user. Only root can, and only root needs to. */
export async function giveTo(account: Account, path: string): Promise<void> {
  if (process.getuid?.() === 0) await chown(path, account.uid, account.gid);
}

/** Creates a directory and its missing parents for a user. */
export async function ensureDirectory(path: string, account: Account): Promise<void> {
  const missing: string[] = [];
  for (let current = path; ; current = dirname(current)) {
    try {
      if (!(await stat(current)).isDirectory()) {
        throw new WrennError('wrong_file_type', { path: current, actual: 'a file', expected: 'a directory' });
      }
      break;
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw fileError(error, current, 'look up');
      missing.push(current);
    }
  }
  for (const directory of missing.reverse()) {
    try {
      await mkdir(directory, 0o755);
    } catch (error) {
      // Somebody else made it in this moment; giving it away again harms nothing.
      if (errnoOf(error) !== 'EEXIST') throw fileError(error, directory, 'create');
    }
    await giveTo(account, directory);
  }
}
