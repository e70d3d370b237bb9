import { readdir, readFile } from 'node:fs/promises';
import type { Platform } from '../tests/e2e/support/platform.ts';
import { type Measurement, summarise } from './measurement.ts';
import { createCapsule, destroyCapsule } from './platform-calls.ts';

const CAPSULES = 8;

/**
 * Memory of each of several idle capsules of one template: the proportional set size of its hypervisor, in which a page
 * that N processes share counts 1/N.
 */
export async function measureMemory(platform: Platform): Promise<Measurement> {
  const ids: string[] = [];
  try {
    for (let i = 0; i < CAPSULES; i++) ids.push(await createCapsule(platform));
    const samples = await Promise.all(ids.map(hypervisorPss));
    return summarise(`memory (PSS) of an idle capsule, ${CAPSULES} of one template`, 'MiB', samples);
  } finally {
    for (const id of ids) await destroyCapsule(platform, id);
  }
}

async function hypervisorPss(id: string): Promise<number> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (!command.startsWith('qemu-system') && !command.includes('/qemu-system')) continue;
    if (!command.includes(id)) continue;
    const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
    const kib = /^Pss:\s+(\d+) kB$/m.exec(rollup)?.[1];
    if (kib) return Number(kib) / 1024;
  }
  throw new Error(`no hypervisor process of ${id} was found`);
}
