import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import type { CallOptions } from '@connectrpc/connect';
import { WrennError } from '@wrenn/protocol/errors';
import { type EntryInfo, FileType } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import type { FileEntry } from '@wrenn/protocol/rest/files';
import type { Guest } from './guest.ts';
import { toGuestError, toGuestHttpError } from './guest-errors.ts';
import { asUser } from './processes.ts';

const CALL_TIMEOUT_MS = 120_000;

/** Where a file is, and as which user to use it; undefined: the default user of the capsule. */
export interface FilePlace {
  readonly path: string;
  readonly user: string | undefined;
}

/** The bytes of a file. The caller reads them to their end or destroys them. */
export async function readFile(guest: Guest, place: FilePlace, signal: AbortSignal): Promise<IncomingMessage> {
  const answer = await exchange(guest, place, () =>
    guest.fetch({ method: 'GET', path: filesPath(place), headers: { 'accept-encoding': 'identity' }, signal }),
  );
  return answer;
}

/** Writes a whole file, or, when `body` or the signal fails, nothing: envd puts it in place only at its end. */
export async function writeFile(guest: Guest, place: FilePlace, body: Readable, signal: AbortSignal): Promise<void> {
  const answer = await exchange(guest, place, () =>
    guest.fetch({
      method: 'POST',
      path: filesPath(place),
      headers: { 'content-type': 'application/octet-stream' },
      body,
      signal,
    }),
  );
  // Read to its end, so that the connection can be used again.
  answer.resume();
}

export async function listDir(
  guest: Guest,
  place: FilePlace,
  depth: number,
  signal: AbortSignal,
): Promise<FileEntry[]> {
  const { path } = place;
  const { entries } = await filesystemCall(guest, place, signal, (options) =>
    guest.filesystem.listDir({ path, depth: Math.max(depth, 1) }, options),
  );
  return entries.map(toFileEntry);
}

/** @throws WrennError `conflict` when it exists already */
export async function makeDir(guest: Guest, place: FilePlace, signal: AbortSignal): Promise<FileEntry> {
  const { path } = place;
  const { entry } = await filesystemCall(guest, place, signal, (options) =>
    guest.filesystem.makeDir({ path }, options),
  );
  if (!entry) throw new WrennError('guest_protocol_error', { id: guest.capsuleId });
  return toFileEntry(entry);
}

export async function removePath(guest: Guest, place: FilePlace, signal: AbortSignal): Promise<void> {
  const { path } = place;
  await filesystemCall(guest, place, signal, (options) => guest.filesystem.remove({ path }, options));
}

function filesPath({ path, user }: FilePlace): string {
  const query = new URLSearchParams({ path, ...(user === undefined ? {} : { username: user }) });
  return `/files?${query}`;
}

async function exchange(
  guest: Guest,
  { path }: FilePlace,
  send: () => Promise<IncomingMessage>,
): Promise<IncomingMessage> {
  let answer: IncomingMessage;
  try {
    answer = await send();
  } catch (error) {
    throw toGuestError(error, { capsuleId: guest.capsuleId, path });
  }
  if (answer.statusCode === 200 || answer.statusCode === 204) return answer;
  answer.resume();
  throw toGuestHttpError(answer, { capsuleId: guest.capsuleId, path });
}

async function filesystemCall<T>(
  guest: Guest,
  { path, user }: FilePlace,
  signal: AbortSignal,
  run: (options: CallOptions) => Promise<T>,
): Promise<T> {
  try {
    return await run({ signal, timeoutMs: CALL_TIMEOUT_MS, headers: asUser(user) });
  } catch (error) {
    const timeout = { what: 'The guest agent', ms: CALL_TIMEOUT_MS };
    throw toGuestError(error, { capsuleId: guest.capsuleId, path, timeout });
  }
}

const TYPES: Readonly<Record<FileType, FileEntry['type']>> = {
  [FileType.FILE]: 'file',
  [FileType.DIRECTORY]: 'directory',
  [FileType.SYMLINK]: 'symlink',
  [FileType.UNSPECIFIED]: 'other',
};

function toFileEntry(entry: EntryInfo): FileEntry {
  return {
    name: entry.name,
    path: entry.path,
    type: TYPES[entry.type],
    size: Number(entry.size),
    mode: entry.mode,
    permissions: entry.permissions,
    owner: entry.owner,
    group: entry.group,
    modified_at: Number(entry.modifiedTime?.seconds ?? 0n),
    symlink_target: entry.symlinkTarget ?? null,
  };
}
