import { open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createFile, syncDirectory } from '@wrenn/config/atomic-file';
import { WrennError } from '@wrenn/protocol/errors';
import { z } from 'zod';
import { settleAll } from '../processes/settle-all.ts';
import { sumFile } from './file-sum.ts';
import { type SnapshotManifest, snapshotManifestSchema } from './snapshot-manifest.ts';

const MANIFEST_NAME = 'manifest.json';

/** What the manifest says of one file. */
export type FileSum = SnapshotManifest['files'][string];

/** Names inside the folder of a snapshot, besides those of disk/disk-chain.ts. */
export function snapshotFolder(dir: string) {
  return {
    dir,
    /** What the hypervisor wrote: memory and devices. */
    memory: join(dir, 'memory'),
    manifest: join(dir, MANIFEST_NAME),
  } as const;
}

export interface SealOptions {
  /** The filled folder, `….partial`. */
  readonly partial: string;
  /** Its final name, where nothing is yet. */
  readonly final: string;
  readonly manifest: Omit<SnapshotManifest, 'files'>;
  /** Files that are on stable storage already and whose sums are known, as they are links to those of another snapshot. */
  readonly known?: Readonly<Record<string, FileSum>>;
}

/** Brings everything in the filled folder to stable storage, sums it up, and gives the folder its final name. */
export async function sealFolder(options: SealOptions, signal?: AbortSignal): Promise<SnapshotManifest> {
  const { partial, final, known = {} } = options;
  const names = await filesIn(partial);
  const fresh = names.filter((name) => !(name in known));
  const [sums] = await settleAll([
    Promise.all(fresh.map(async (name) => [name, await sumOf(join(partial, name), signal)] as const)),
    Promise.all(fresh.map((name) => syncFile(join(partial, name)))),
  ] as const);
  const shared = names.flatMap((name) => (known[name] ? [[name, known[name]] as const] : []));
  const manifest = { ...options.manifest, files: Object.fromEntries([...shared, ...sums]) };
  await createFile(join(partial, MANIFEST_NAME), JSON.stringify(manifest, undefined, 2), { mode: 0o600 });
  await Promise.all([...new Set(names.map((name) => dirname(join(partial, name))))].map(syncDirectory));
  signal?.throwIfAborted();
  await rename(partial, final);
  await syncDirectory(dirname(final));
  return manifest;
}

/** @throws Error when there is no manifest that this version understands. */
export async function readManifest(dir: string): Promise<SnapshotManifest> {
  return snapshotManifestSchema.parse(JSON.parse(await readFile(join(dir, MANIFEST_NAME), 'utf8')));
}

/** The version that wrote a manifest which `readManifest` does not understand; undefined where it is none at all. */
export async function manifestVersion(dir: string): Promise<number | undefined> {
  const text = await readFile(join(dir, MANIFEST_NAME), 'utf8').catch(() => '');
  try {
    return z.object({ version: z.number() }).parse(JSON.parse(text)).version;
  } catch {
    return undefined;
  }
}

/**
 * Looks at size and time of every file: quick, and sees whatever was written since.
 *
 * @throws Error naming the first file that is missing or differs.
 */
export async function checkFiles(dir: string, manifest: SnapshotManifest): Promise<void> {
  for (const [name, expected] of Object.entries(manifest.files)) {
    const found = await stat(join(dir, name)).catch(ignoreMissing);
    if (!found) throw new Error(`${name} is missing`);
    if (found.size !== expected.sizeBytes || found.mtimeMs !== expected.mtimeMs) throw new Error(`${name} was changed`);
  }
}

/** What is wrong with one file, for a person; undefined where it is as it was written. Reads all of it. */
export async function findDamage(
  dir: string,
  name: string,
  expected: FileSum,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const found = await stat(join(dir, name)).catch(ignoreMissing);
  if (!found) return `${name} is missing`;
  if (found.size !== expected.sizeBytes) return `${name} has ${found.size} bytes instead of ${expected.sizeBytes}`;
  let sha256: string;
  try {
    sha256 = await sumFile(join(dir, name), signal);
  } catch (error) {
    signal?.throwIfAborted();
    return `${name} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`;
  }
  return sha256 === expected.sha256 ? undefined : `${name} has another content than when it was made`;
}

/**
 * Reads every file and compares it with its sum: sees what a failing disk did.
 *
 * @throws Error naming the first file that is missing or differs.
 */
export async function checkContent(dir: string, manifest: SnapshotManifest, signal?: AbortSignal): Promise<void> {
  for (const [name, expected] of Object.entries(manifest.files)) {
    const damage = await findDamage(dir, name, expected, signal);
    if (damage) throw new Error(damage);
  }
}

/** Removes a folder so that no half of it is ever seen under its name. */
export async function removeFolder(dir: string): Promise<void> {
  const doomed = `${dir}.removing`;
  await rename(dir, doomed).catch((error: NodeJS.ErrnoException) => {
    // Gone already, or an earlier removal was cut off and its rest is in the way.
    if (error.code !== 'ENOENT' && error.code !== 'ENOTEMPTY') throw error;
  });
  await rm(doomed, { recursive: true, force: true });
  await rm(dir, { recursive: true, force: true });
}

/** Bytes on disk of the files that no other snapshot or VM shares. */
export async function ownBytes(dir: string, names: readonly string[]): Promise<number> {
  const found = await Promise.all(names.map((name) => stat(join(dir, name)).catch(ignoreMissing)));
  return found.reduce((sum, file) => sum + (file ? file.blocks * 512 : 0), 0);
}

async function filesIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true, recursive: true });
  const files = entries.filter((entry) => !entry.isDirectory());
  return files.map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1)).sort();
}

async function sumOf(path: string, signal: AbortSignal | undefined): Promise<FileSum> {
  const sha256 = await sumFile(path, signal);
  const { size, mtimeMs } = await stat(path);
  return { sizeBytes: size, mtimeMs, sha256 };
}

async function syncFile(path: string): Promise<void> {
  await using handle = await open(path, 'r');
  await handle.sync();
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

/** The error for a snapshot that is not what it was. */
export function damagedError(id: string, cause: unknown): WrennError {
  const problem = cause instanceof Error ? cause.message : 'its files cannot be read';
  return new WrennError('snapshot_damaged', { id, problem }, { cause });
}
