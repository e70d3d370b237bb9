import { basename, posix, resolve } from 'node:path';
import { Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';
import { CliError } from '../cli-error.ts';
import { startProgress } from '../terminal/progress.ts';
import { type Guest, type GuestPath, lookAt, setMode, unpackInGuest, withGuestArchive } from './guest-files.ts';
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
    return send(guest, 'standard input', undefined, target.path, (stream, signal) =>
      pipeline(process.stdin, stream, { signal }),
    );
  }
  const source = resolve(from.path);
  const stats = await statLocal(source);
  if (stats === undefined) throw new CliError(`${from.path} does not exist.`);
  const path = guestTarget(target, to, basename(source));
  if (stats.isDirectory()) return uploadFolder(guest, source, path, target);
  if (!stats.isFile()) throw new CliError(`${from.path} is neither a file nor a folder.`);
  await using file = await openLocal(source);
  const content = file.createReadStream({ autoClose: false });
  const bytes = await send(guest, basename(source), stats.size, path, (stream, signal) =>
    pipeline(content, stream, { signal }),
  );
  if ((stats.mode & 0o111) !== 0) await setMode(guest, path, stats.mode & 0o777);
  return bytes;
}

/** Into the target where it is a folder or is written as one, else under its own name. */
function guestTarget(target: GuestPath, to: string, name: string): string {
  return target.found?.kind === 'directory' || to.endsWith('/') ? posix.join(target.path, name) : target.path;
}

async function uploadFolder(guest: Guest, folder: string, path: string, target: GuestPath): Promise<number> {
  if (target.found !== undefined && target.found.kind !== 'directory') {
    throw new CliError(`${target.path} in the capsule is not a folder.`, 'Name a folder, or a path that is not there.');
  }
  const name = basename(folder);
  return withGuestArchive(guest, async (archive) => {
    const bytes = await send(guest, name, undefined, archive, (stream, signal) => packLocal(folder, stream, signal));
    using _ = startProgress(`unpacking ${name}`);
    await unpackInGuest(guest, archive, path);
    return bytes;
  });
}

/** Writes a guest file from what `fill` puts into the stream. */
async function send(
  guest: Guest,
  title: string,
  sizeBytes: number | undefined,
  path: string,
  fill: (stream: Transform, signal: AbortSignal) => Promise<void>,
): Promise<number> {
  using meter = startMeter(title, sizeBytes);
  const body = Readable.toWeb(meter.stream) as ReadableStream<Uint8Array>;
  await together(
    guest.signal,
    (signal) => fill(meter.stream, signal),
    (signal) => guest.api.writeFile(guest.capsuleId, path, body, signal, guest.user),
  );
  return meter.bytes;
}
