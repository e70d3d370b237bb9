import { createWriteStream } from 'node:fs';
import { chmod, mkdir } from 'node:fs/promises';
import { basename } from 'node:path';
import { Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { CliError } from '../cli-error.ts';
import { startProgress } from '../terminal/progress.ts';
import { type Guest, lookAt, packInGuest, withGuestArchive } from './guest-files.ts';
import { localTarget, putInPlace } from './local-path.ts';
import { unpackLocal } from './local-tar.ts';
import type { LocalSide } from './location.ts';
import { together } from './together.ts';
import { startMeter } from './transfer.ts';

/** Copies a file or folder of a capsule to this machine. Answers how many bytes came. */
export async function download(guest: Guest, from: string, to: LocalSide, force: boolean): Promise<number> {
  const { path, found } = await lookAt(guest, from);
  if (found === undefined) throw new WrennError('path_not_found', { path });
  if (found.kind === 'other') throw new CliError(`${path} in the capsule is neither a file nor a folder.`);
  const name = basename(path);
  if (found.kind === 'directory') {
    if (to.kind === 'stream') throw new CliError(`${path} is a folder; only a file can go to standard output.`);
    return downloadFolder(guest, path, await localTarget(to.path, name || 'root'), force);
  }
  if (to.kind === 'stream') return receiveFile(guest, path, found.sizeBytes, process.stdout);
  let bytes = 0;
  await putInPlace(await localTarget(to.path, name), false, async (temporary) => {
    bytes = await receiveFile(guest, path, found.sizeBytes, createWriteStream(temporary, { flags: 'wx' }));
    // Whether it can be run goes along; setuid and others' right to write do not.
    if ((found.mode & 0o111) !== 0) await chmod(temporary, 0o755 & ~process.umask());
  });
  return bytes;
}

async function receiveFile(
  { api, capsuleId, signal, user }: Guest,
  path: string,
  sizeBytes: number,
  target: Writable,
): Promise<number> {
  const { body, sizeBytes: announced } = await api.readFile(capsuleId, path, signal, user);
  using meter = startMeter(basename(path), announced ?? sizeBytes);
  await pipeline(Readable.fromWeb(body), meter.stream, target, { signal, end: target !== process.stdout });
  return meter.bytes;
}

async function downloadFolder(guest: Guest, path: string, target: string, force: boolean): Promise<number> {
  const name = basename(path);
  return withGuestArchive(guest, async (archive) => {
    const sizeBytes = await pack(guest, path, archive);
    using meter = startMeter(name, sizeBytes);
    await putInPlace(target, force, async (temporary) => {
      await mkdir(temporary);
      const { body } = await guest.api.readFile(guest.capsuleId, archive, guest.signal, guest.user);
      await together(
        guest.signal,
        (signal) => pipeline(Readable.fromWeb(body), meter.stream, { signal }),
        (signal) => unpackLocal(temporary, meter.stream, signal),
      );
    });
    return meter.bytes;
  });
}

async function pack(guest: Guest, path: string, archive: string): Promise<number> {
  using _ = startProgress(`packing ${path}`);
  return await packInGuest(guest, path, archive);
}
