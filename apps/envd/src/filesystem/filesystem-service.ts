import { lstat, readdir, realpath, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import { WrennError } from '@wrenn/protocol/errors';
import type { EntryInfo, Filesystem } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import { errnoOf, fileError } from '../errors.ts';
import { isUploadName } from '../files/replace-file.ts';
import { basicAuthUser, effectiveAccount, type GuestState } from '../guest-state.ts';
import type { Account } from '../users/accounts.ts';
import { ensureDirectory, resolveUserPath } from '../users/paths.ts';
import { createWatchMethods } from '../watch/watch-methods.ts';
import { entryInfo, entryInfoIfThere } from './entry-info.ts';

export function createFilesystemService(state: GuestState): ServiceImpl<typeof Filesystem> {
  function locate(path: string, context: HandlerContext): { account: Account; path: string } {
    const account = effectiveAccount(state, basicAuthUser(context.requestHeader.get('Authorization')));
    return { account, path: resolveUserPath(path, account, state.defaultWorkdir) };
  }

  return {
    async stat(request, context) {
      return { entry: await entryInfo(locate(request.path, context).path) };
    },

    async makeDir(request, context) {
      const { account, path } = locate(request.path, context);
      if (await isDirectory(path)) throw new WrennError('conflict', { what: path });
      await ensureDirectory(path, account);
      return { entry: await entryInfo(path) };
    },

    async move(request, context) {
      const source = locate(request.source, context).path;
      const { account, path: destination } = locate(request.destination, context);
      try {
        await lstat(source);
      } catch (error) {
        throw fileError(error, source, 'move');
      }
      await ensureDirectory(dirname(destination), account);
      try {
        await rename(source, destination);
      } catch (error) {
        throw fileError(error, destination, 'move to');
      }
      return { entry: await entryInfo(destination) };
    },

    async listDir(request, context) {
      const { path } = locate(request.path, context);
      try {
        const real = await realpath(path);
        if (!(await stat(real)).isDirectory()) {
          throw new WrennError('wrong_file_type', { path, actual: 'a file', expected: 'a directory' });
        }
        const entries: EntryInfo[] = [];
        await listEntries(real, path, request.depth || 1, entries);
        return { entries };
      } catch (error) {
        throw fileError(error, path, 'list');
      }
    },

    async remove(request, context) {
      const { path } = locate(request.path, context);
      try {
        await rm(path, { recursive: true, force: true });
      } catch (error) {
        throw fileError(error, path, 'remove');
      }
      return {};
    },

    ...createWatchMethods(locate),
  };
}

/** Whether there is a directory. Fails with `wrong_file_type` on anything else that is there. */
async function isDirectory(path: string): Promise<boolean> {
  try {
    if ((await stat(path)).isDirectory()) return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw fileError(error, path, 'create');
  }
  throw new WrennError('wrong_file_type', { path, actual: 'a file', expected: 'a directory' });
}

/** Entries below a directory in the order of their names, each directory before what is in it. Links are not followed. */
async function listEntries(directory: string, shownAs: string, depth: number, entries: EntryInfo[]): Promise<void> {
  const names = (await readdir(directory)).filter((name) => !isUploadName(name)).sort();
  for (const name of names) {
    const path = join(directory, name);
    const entry = await entryInfoIfThere(path);
    if (entry === undefined) continue;
    entry.path = join(shownAs, name);
    entries.push(entry);
    if (depth > 1 && (await isRealDirectory(path))) {
      try {
        await listEntries(path, entry.path, depth - 1, entries);
      } catch (error) {
        // Removed between its name's listing and its own.
        if (errnoOf(error) !== 'ENOENT') throw error;
      }
    }
  }
}

async function isRealDirectory(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isDirectory();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}
