import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { z } from 'zod';
import { systemCodeOf } from '../cli-error.ts';

/** The part of the host agent's record of a VM that tells its process. */
const recordSchema = z.object({ id: z.string(), process: z.object({ pid: z.int() }).optional() });

/** The process that runs a capsule's microVM on this machine, by the records of the host agent. */
export async function findVmProcess(dir: WrennDir, capsuleId: string): Promise<number | undefined> {
  for (const vm of await readdir(dir.capsules)) {
    const text = await readOrNone(join(dir.capsule(vm), 'record.json'));
    const record = text === undefined ? undefined : recordSchema.parse(JSON.parse(text));
    if (record?.id === capsuleId) return record.process?.pid;
  }
  return undefined;
}

/** The command that a process of this machine runs; undefined when there is no such process. */
export async function commandOf(pid: number): Promise<string | undefined> {
  const words = (await readOrNone(`/proc/${pid}/cmdline`))?.split('\0');
  // A process that ended and was not waited for yet has no words.
  return words?.[0] ? words.join(' ') : undefined;
}

async function readOrNone(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    // ESRCH: the process ended while it was read.
    if (['ENOENT', 'ESRCH'].includes(systemCodeOf(error) ?? '')) return undefined;
    throw error;
  }
}
