import { readFile, realpath } from 'node:fs/promises';
import { join, sep } from 'node:path';

/**
 * Reads a file of a root file system that somebody else made. Undefined when it is not there, or when links lead out
 * of the root, where the host's own files are.
 */
export async function readForeignFile(rootDir: string, path: string): Promise<string | undefined> {
  try {
    const root = await realpath(rootDir);
    const file = await realpath(join(root, path));
    return file.startsWith(root + sep) ? await readFile(file, 'utf8') : undefined;
  } catch (error) {
    if (error instanceof Error && 'code' in error && ABSENT.has(String(error.code))) return undefined;
    throw error;
  }
}

const ABSENT: ReadonlySet<string> = new Set(['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP']);
