import { createHash } from 'node:crypto';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Files that go into guests as they are, and scripts that make them. */
export const GUEST_FOLDER = fileURLToPath(new URL('../guest/', import.meta.url));

/** Hex SHA-256 of a value as JSON. Keys are taken in their order. */
export function hashOf(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex');
}

/** Hex SHA-256 of a folder's files: their paths, contents and link targets; not their times. */
export async function hashFolder(folder: string): Promise<string> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const lines: string[] = [];
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name);
    const name = relative(folder, path);
    if (entry.isSymbolicLink()) lines.push(`${name} -> ${await readlink(path)}`);
    else if (entry.isFile()) {
      lines.push(
        `${name} ${createHash('sha256')
          .update(await readFile(path))
          .digest('hex')}`,
      );
    }
  }
  return hashOf(lines.sort());
}

/** Hex SHA-256 of files of the guest folder. */
export async function hashGuestFiles(names: readonly string[]): Promise<string> {
  return hashOf(
    await Promise.all(names.map(async (name) => [name, await readFile(join(GUEST_FOLDER, name), 'base64')])),
  );
}
