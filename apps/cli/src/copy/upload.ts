import { basename, posix, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';
import { CliError } from '../cli-error.ts';
import { type Guest, type GuestPath, lookAt, setMode, unpackInGuest } from './guest-files.ts';
import { openLocal, statLocal } from './local-path.ts';
import { packLocal } from './local-tar.ts';
import type { LocalSide } from './location.ts';
import { together } from './together.ts';
import { startMeter } from './transfer.ts';

/** Copies a local file, folder or standard input into a capsule. Answers how many bytes went there. */
export async function upload(guest: Guest, from: LocalSide, to: string): Promise<number> {
  const target = await lookAt(guest, to);
  if (from.kind === 'stream') {
    if (target.found?.kind === 'directory' || to.endsWith('/')) {
      throw new CliError(`${target.path} is a folder; the input needs the name of a file.`);
    }
    return sendFile(guest, process.stdin, undefined, target.path, 'standard input');
  }
  const source = resolve(from.path);
  const stats = await statLocal(source);
  if (stats === undefined) throw new CliError(`${from.path} does not exist.`);
  const path = guestTarget(target, to, basename(source));
  if (stats.isDirectory()) return uploadFolder(guest, source, path, target);
  if (!stats.isFile()) throw new CliError(`${from.path} is neither a file nor a folder.`);
  await using file = await openLocal(source);
  const bytes = await sendFile(guest, file.createReadStream({ autoClose: false }), stats.size, path, basename(source));
  if ((stats.mode & 0o111) !== 0) await setMode(guest, path, stats.mode & 0o777);
  return bytes;
}

/** Into the target where it is a folder or is written as one, else under its own name. */
function guestTarget(target: GuestPath, to: string, name: string): string {
  return target.found?.kind === 'directory' || to.endsWith('/') ? posix.join(target.path, name) : target.path;
}

async function sendFile(
  guest: Guest,
  content: Readable,
  sizeBytes: number | undefined,
  path: string,
  title: string,
): Promise<number> {
  using meter = startMeter(title, sizeBytes);
  const body = Readable.toWeb(meter.stream) as ReadableStream<Uint8Array>;
  await together(
    guest.signal,
    (signal) => pipeline(content, meter.stream, { signal }),
    (signal) => guest.api.writeFile(guest.capsuleId, path, body, signal, guest.user),
  );
  return meter.bytes;
}

async function uploadFolder(guest: Guest, folder: string, path: string, target: GuestPath): Promise<number> {
  if (target.found !== undefined && target.found.kind !== 'directory') {
    throw new CliError(`${target.path} in the capsule is not a folder.`, 'Name a folder, or a path that is not there.');
  }
  using meter = startMeter(basename(folder), undefined);
  await together(
    guest.signal,
    (signal) => packLocal(folder, meter.stream, signal),
    (signal) => unpackInGuest({ ...guest, signal }, path, meter.stream),
  );
  return meter.bytes;
}
