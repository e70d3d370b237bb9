import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import type { Platform } from '../tests/e2e/support/platform.ts';
import { type Measurement, summarise } from './measurement.ts';
import { createCapsule, destroyCapsule } from './platform-calls.ts';

const CAPSULES = 8;

/** Memory of each of several idle capsules of one template. */
export async function measureMemory(platform: Platform): Promise<Measurement> {
  const ids: string[] = [];
  try {
    for (let i = 0; i < CAPSULES; i++) ids.push(await createCapsule(platform));
    const samples = await hypervisorPss(platform, ids);
    return summarise(`memory (PSS) of an idle capsule, ${CAPSULES} of one template`, 'MiB', samples);
  } finally {
    for (const id of ids) await destroyCapsule(platform, id);
  }
}

/**
 * MiB of the proportional set size of each capsule's hypervisor, in which a page that N processes share counts 1/N, all
 * read at about the same moment.
 */
export async function hypervisorPss({ dir }: Platform, ids: readonly string[]): Promise<number[]> {
  const { capsules } = wrennDir(dir);
  const records = await Promise.all(
    (await readdir(capsules)).map(async (vm) => JSON.parse(await readFile(join(capsules, vm, 'record.json'), 'utf8'))),
  );
  return Promise.all(
    ids.map(async (id) => {
      const pid: unknown = records.find((record) => record.id === id)?.process?.pid;
      if (typeof pid !== 'number') throw new Error(`no hypervisor process of ${id} was found`);
      const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
      const kib = /^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1];
      if (!kib) throw new Error(`/proc/${pid}/smaps_rollup tells no PSS`);
      return Number(kib) / 1024;
    }),
  );
}
