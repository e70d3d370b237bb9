import { createReadStream } from 'node:fs';
import { stat, unlink } from 'node:fs/promises';
import { basename } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf, fileError } from '../errors.ts';
import { effectiveAccount, type GuestState } from '../guest-state.ts';
import { resolveUserPath } from '../users/paths.ts';
import { replaceFile } from './replace-file.ts';
import type { WrittenFile } from './upload.ts';

const READ_BYTES = 1024 * 1024;

/** POST /files/compose: makes one file of several, in their order, and removes those. */
export async function compose(body: unknown, state: GuestState): Promise<WrittenFile> {
  const { sourcePaths, destination, username } = parse(body);
  const account = effectiveAccount(state, username);
  const target = resolveUserPath(destination, account, state.defaultWorkdir);
  const sources = sourcePaths.map((path) => resolveUserPath(path, account, state.defaultWorkdir));
  for (const source of sources) {
    if (source === target)
      throw new WrennError('invalid_request', { problem: `${source} is a source and the destination` });
    await checkRegular(source);
  }
  await replaceFile(target, concatenate(sources), account, {});
  for (const source of new Set(sources)) await removeSource(source);
  return { path: target, name: basename(target), type: 'file' };
}

function parse(body: unknown): { sourcePaths: string[]; destination: string; username: string | undefined } {
  const fields = typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {};
  const { source_paths: sourcePaths, destination, username } = fields;
  if (
    !Array.isArray(sourcePaths) ||
    sourcePaths.length === 0 ||
    !sourcePaths.every((path) => typeof path === 'string')
  ) {
    throw new WrennError('invalid_request', { problem: 'source_paths must be a list of one or more paths' });
  }
  if (typeof destination !== 'string' || destination === '') {
    throw new WrennError('invalid_request', { problem: 'destination must be a path' });
  }
  if (username !== undefined && typeof username !== 'string') {
    throw new WrennError('invalid_request', { problem: 'username must be a text' });
  }
  return { sourcePaths, destination, username };
}

async function checkRegular(path: string): Promise<void> {
  try {
    if ((await stat(path)).isFile()) return;
  } catch (error) {
    throw fileError(error, path, 'read');
  }
  throw new WrennError('wrong_file_type', { path, actual: 'no regular file', expected: 'a file' });
}

async function* concatenate(paths: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const path of paths) yield* createReadStream(path, { highWaterMark: READ_BYTES });
}

async function removeSource(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw fileError(error, path, 'remove');
  }
}
