import { constants } from 'node:fs';
import { open, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const CONSOLE_TAIL = 'console.tail';
/** What a VM that ended leaves. */
const KEPT = new Set(['record.json', CONSOLE_TAIL]);
/** How much of the console outlives the VM. */
export const CONSOLE_TAIL_BYTES = 64 * 1024;

/** Names inside `capsules/{id}`. */
export function vmFolder(dir: string) {
  return {
    dir,
    /** Sockets, console and logs; belongs to the VM's own user. */
    runDir: join(dir, 'run'),
    console: join(dir, 'run', 'console.log'),
    consoleTail: join(dir, CONSOLE_TAIL),
  } as const;
}

/** Keeps the end of the console for when the VM is gone. */
export async function keepConsole(dir: string): Promise<void> {
  const folder = vmFolder(dir);
  const tail = await readTail(folder.console, CONSOLE_TAIL_BYTES);
  if (tail.length > 0) await writeFile(folder.consoleTail, tail, { mode: 0o600 });
}

/** Removes everything of a VM that ended but its record and the end of its console. */
export async function stripFolder(dir: string): Promise<void> {
  const names = await readdir(dir);
  await Promise.all(
    names.filter((name) => !KEPT.has(name)).map((name) => rm(join(dir, name), { recursive: true, force: true })),
  );
}

/** At most `maxBytes` from the end of a file; nothing when there is no such file. */
export async function readTail(path: string, maxBytes: number): Promise<Buffer> {
  try {
    // The folder belongs to the VM's user: whatever a hostile hypervisor puts there, only a plain file is read.
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const stat = await file.stat();
    if (!stat.isFile()) return Buffer.alloc(0);
    const length = Math.min(stat.size, maxBytes);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, stat.size - length);
    return buffer.subarray(0, bytesRead);
  } catch (error) {
    if (['ENOENT', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? '')) return Buffer.alloc(0);
    throw error;
  }
}
