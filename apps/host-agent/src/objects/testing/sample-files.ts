import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export const MIB = 1024 * 1024;

/** A sparse file of `sizeBytes` with the given pieces in it. */
export async function writeSparse(
  path: string,
  sizeBytes: number,
  pieces: readonly { readonly at: number; readonly bytes: Buffer }[],
): Promise<void> {
  await using file = await open(path, 'w');
  await file.truncate(sizeBytes);
  for (const { at, bytes } of pieces) await file.write(bytes, 0, bytes.length, at);
}

/** Like a snapshot: a sparse file with chunks that shrink, that do not, and one that is cut off; small ones; an empty one. */
export async function writeSnapshot(dir: string): Promise<{ readonly name: string; readonly path: string }[]> {
  const memory = join(dir, 'memory');
  await writeSparse(memory, 40 * MIB + 12_345, [
    { at: 3 * MIB + 100, bytes: Buffer.from('guest memory '.repeat(200_000)) },
    { at: 20 * MIB - 1000, bytes: randomBytes(12 * MIB) },
    { at: 40 * MIB + 12_000, bytes: randomBytes(345) },
  ]);
  await writeSparse(join(dir, 'devices'), 13_000, [{ at: 0, bytes: randomBytes(13_000) }]);
  await writeSparse(join(dir, 'empty'), 0, []);
  await writeSparse(join(dir, 'zeros'), 6 * MIB, []);
  return ['memory', 'devices', 'empty', 'zeros'].map((name) => ({
    name: name === 'devices' ? 'state/devices' : name,
    path: join(dir, name),
  }));
}

export async function sumOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const part of createReadStream(path)) hash.update(part as Buffer);
  return hash.digest('hex');
}

/** Bytes that a file takes on its disk. */
export async function diskBytes(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}

/** Paths of all files below a folder, relative to it; none where it does not exist. */
export async function filesBelow(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1))
    .sort();
}
