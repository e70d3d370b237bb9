import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** Flushes a file or folder to stable storage. */
export async function flush(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Flushes every file and folder of a tree. */
export async function flushTree(root: string): Promise<void> {
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    if (entry.isFile() || entry.isDirectory()) await flush(join(entry.parentPath, entry.name));
  }
  await flush(root);
}

/**
 * Moves what is complete to its place so that it is whole there after a crash of the machine. The files of a folder
 * must have been flushed before (`flushTree`).
 */
export async function place(from: string, to: string): Promise<void> {
  await flush(from);
  await rename(from, to);
  await flush(dirname(to));
}

/** Writes a small file so that readers see the old content or the new, never a part. */
export async function writeFileAtomically(path: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
  const partial = join(dirname(path), `.${randomUUID()}.partial`);
  try {
    await writeFile(partial, content, { mode, flush: true });
    await place(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** Points a symbolic link at another target in one step. */
export async function swapLink(link: string, target: string): Promise<void> {
  const partial = join(dirname(link), `.${randomUUID()}.partial`);
  try {
    await symlink(target, partial);
    await rename(partial, link);
    await flush(dirname(link));
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

/** A folder for half-made things inside `parent`; gone when the block that holds it ends. */
export async function temporaryFolder(parent: string): Promise<AsyncDisposable & { readonly path: string }> {
  const path = join(parent, `.${randomUUID()}.partial`);
  await mkdir(path, { recursive: true });
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Removes what interrupted builds left in a folder. Only for the holder of the build lock. */
export async function removePartials(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch((error: unknown) => {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  });
  const partials = names.filter((name) => name.endsWith('.partial'));
  for (const name of partials) await rm(join(folder, name), { recursive: true, force: true });
  return partials;
}
