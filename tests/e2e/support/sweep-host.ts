import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { VmCgroups } from '@wrenn/host-agent/confinement/vm-cgroups';
import { type VmRecord, vmRecordSchema } from '@wrenn/host-agent/journal/vm-record';
import { listClaims, releaseClaim } from '@wrenn/host-agent/network/claims';
import { removeNamespace } from '@wrenn/host-agent/network/namespace';
import { slotOf } from '@wrenn/host-agent/network/slot';
import { killProcess } from '@wrenn/hypervisor/vm-process';
import { pino } from 'pino';

/** What a host's journal says of its VMs. */
async function journalOf(dir: string): Promise<VmRecord[]> {
  const { capsules } = wrennDir(dir);
  const names = await readdir(capsules).catch(() => []);
  const texts = await Promise.all(
    names.map((name) => readFile(join(capsules, name, 'record.json'), 'utf8').catch(() => undefined)),
  );
  return texts.flatMap((text) => (text === undefined ? [] : [vmRecordSchema.parse(JSON.parse(text))]));
}

/** Ends the VM of a capsule at once. */
export async function killVm(dir: string, capsuleId: string): Promise<void> {
  const record = (await journalOf(dir)).find(({ id }) => id === capsuleId);
  if (!record?.process) throw new Error(`${capsuleId} has no VM in ${dir}`);
  await killProcess(record.process);
}

/** Takes from this machine whatever a host has of it besides its files. Its agent has ended. */
export async function sweepHost(dir: string): Promise<void> {
  const records = await journalOf(dir);
  await Promise.all(records.map(({ process }) => process && killProcess(process)));
  const cgroups = await VmCgroups.open({ wrennDir: dir, accelerator: 'tcg', log: pino({ level: 'silent' }) });
  for (const id of await cgroups.list()) await cgroups.remove(id);
  await cgroups[Symbol.asyncDispose]();
  for (const { index, owner } of await listClaims()) {
    if (owner?.wrennDir !== dir) continue;
    await removeNamespace(slotOf(index));
    await releaseClaim(index);
  }
}
