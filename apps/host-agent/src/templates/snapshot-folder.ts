import { open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createFile, syncDirectory } from '@wrenn/config/atomic-file';
import { z } from 'zod';
import { runCommand } from '../processes/run-command.ts';
import { type TemplateInputs, templateInputsSchema } from './template-key.ts';

const MANIFEST_NAME = 'manifest.json';

/** Names inside `template-snapshots/{key}`. */
export function snapshotFolder(dir: string) {
  return {
    dir,
    /** What the hypervisor wrote: memory and devices. */
    memory: join(dir, 'memory'),
    /** The disk as the memory knows it; never changed again. */
    frozenDisk: join(dir, 'disk.qcow2'),
    /** What every VM's own disk begins as. */
    blankOverlay: join(dir, 'blank.qcow2'),
    /** Of the VM that the snapshot is taken from; gone when it is complete. */
    runDir: join(dir, 'run'),
  } as const;
}

const manifestSchema = z.object({
  version: z.literal(1),
  key: z.string(),
  inputs: templateInputsSchema,
  /** By path inside the folder. */
  files: z.record(z.string(), z.object({ sizeBytes: z.number().int(), mtimeMs: z.number(), sha256: z.string() })),
  createdAt: z.string(),
});

type SnapshotManifest = z.infer<typeof manifestSchema>;

/** Brings everything in the filled folder to stable storage, sums it up, and gives it its final name. */
export async function sealFolder(partial: string, final: string, key: string, inputs: TemplateInputs): Promise<void> {
  const names = await filesIn(partial);
  await Promise.all(names.map((name) => syncFile(join(partial, name))));
  const sums = await sumFiles(partial, names);
  const manifest: SnapshotManifest = {
    version: 1,
    key,
    inputs,
    files: Object.fromEntries(sums),
    createdAt: new Date().toISOString(),
  };
  await createFile(join(partial, MANIFEST_NAME), JSON.stringify(manifest, undefined, 2));
  await Promise.all(names.map((name) => syncDirectory(dirname(join(partial, name)))));
  await rename(partial, final);
  await syncDirectory(dirname(final));
}

/** @throws Error when there is no manifest that this version understands. */
export async function readManifest(dir: string): Promise<SnapshotManifest> {
  return manifestSchema.parse(JSON.parse(await readFile(join(dir, MANIFEST_NAME), 'utf8')));
}

/**
 * Looks at size and time of every file: quick, and sees whatever was written since.
 *
 * @throws Error naming the first file that is missing or differs.
 */
export async function checkFiles(dir: string, manifest: SnapshotManifest): Promise<void> {
  for (const [name, expected] of Object.entries(manifest.files)) {
    const { size, mtimeMs } = await stat(join(dir, name));
    if (size !== expected.sizeBytes || mtimeMs !== expected.mtimeMs) throw new Error(`${name} was changed`);
  }
}

/**
 * Reads every file and compares it with its sum: sees what a failing disk did.
 *
 * @throws Error naming the first file that is missing or differs.
 */
export async function checkContent(dir: string, manifest: SnapshotManifest, signal?: AbortSignal): Promise<void> {
  for (const [name, { sha256 }] of await sumFiles(dir, Object.keys(manifest.files), signal)) {
    if (sha256 !== manifest.files[name]?.sha256) throw new Error(`${name} has another content than when it was made`);
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

async function filesIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true, recursive: true });
  const files = entries.filter((entry) => entry.isFile());
  return files.map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1)).sort();
}

interface FileSum {
  readonly sizeBytes: number;
  readonly mtimeMs: number;
  readonly sha256: string;
}

async function sumFiles(dir: string, names: readonly string[], signal?: AbortSignal): Promise<[string, FileSum][]> {
  const paths = names.map((name) => join(dir, name));
  // A program of its own, and a patient one: hashing hundreds of MB must not hold up VMs.
  const args = ['-n', '10', 'sha256sum', '--zero', '--', ...paths];
  const text = await runCommand('nice', args, { timeoutMs: 600_000, ...(signal ? { signal } : {}) });
  const sums = new Map(text.split('\0').map((line) => [line.slice(66), line.slice(0, 64)]));
  return Promise.all(
    names.map(async (name) => {
      const path = join(dir, name);
      const sha256 = sums.get(path);
      if (!sha256) throw new Error(`no sum for ${path}`);
      const { size, mtimeMs } = await stat(path);
      return [name, { sizeBytes: size, mtimeMs, sha256 }] satisfies [string, FileSum];
    }),
  );
}

async function syncFile(path: string): Promise<void> {
  await using handle = await open(path, 'r');
  await handle.sync();
}
