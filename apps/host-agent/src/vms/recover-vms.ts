import { readlink } from 'node:fs/promises';
import { basename } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { killProcess } from '@wrenn/hypervisor/vm-process';
import type { Logger } from 'pino';
import type { Journal } from '../journal/journal.ts';
import type { VmRecord } from '../journal/vm-record.ts';
import type { ClaimOwner } from '../network/claims.ts';
import { settleSlots } from '../network/leftovers.ts';
import { slotOf } from '../network/slot.ts';
import { processesNaming } from '../processes/processes.ts';
import type { SnapshotStore } from '../snapshots/snapshot-store.ts';
import type { VmResources } from '../templates/make-snapshot.ts';
import { goOn } from './stand-still.ts';
import type { VmEntry } from './vm.ts';

const ADOPT_TIMEOUT_MS = 30_000;

export interface RecoveryContext {
  readonly dir: WrennDir;
  readonly journal: Journal;
  readonly resources: VmResources;
  /** Opened already. */
  readonly snapshots: SnapshotStore;
  readonly owner: ClaimOwner;
  readonly log: Logger;
  readonly claimsDir?: string;
}

/** What an agent finds when it starts. */
export interface Recovered {
  /** VMs that run, under control again. */
  readonly running: VmEntry[];
  /** VMs whose process ended while no agent looked. They hold nothing but files. */
  readonly lost: VmEntry[];
  /** VMs that had ended before. */
  readonly failed: VmEntry[];
}

/**
 * Brings the machine and the journal in line after an agent ended in whatever way: adopts every VM whose process runs,
 * undoes what was half made, finishes what was half removed, and removes what no record names, as far as it belongs
 * to this WRENN_DIR.
 */
export async function recoverVms(context: RecoveryContext, signal: AbortSignal): Promise<Recovered> {
  const { journal, resources, log } = context;
  const entries = await journal.load();
  const records = entries.flatMap((entry) => (entry.kind === 'record' ? [entry.record] : []));
  const alive = records.filter((record) => record.phase === 'running' || isInterruptedPause(context, record));
  const adopted = await Promise.all(alive.map((record) => adopt(context, record, signal)));
  const running = adopted.filter((entry) => entry.process);
  await removeOrphans(context, running, signal);
  const kept = new Set([...alive, ...records.filter(({ phase }) => phase === 'failed')].map(({ vmId }) => vmId));
  for (const entry of entries) {
    const vmId = entry.kind === 'record' ? entry.record.vmId : entry.vmId;
    if (kept.has(vmId)) continue;
    await journal.end(vmId);
    if (entry.kind === 'record')
      log.info({ vm: entry.record.id, phase: entry.record.phase }, 'removed the rest of a VM');
  }
  for (const { record } of running) log.info({ vm: record.id, pid: record.process?.pid }, 'adopted a running VM');
  const inCgroups = new Set(running.map(({ record }) => record.vmId));
  for (const vmId of await resources.cgroups.list()) if (!inCgroups.has(vmId)) await resources.cgroups.remove(vmId);
  const failed = records.filter(({ phase }) => phase === 'failed').map((record) => newEntry(record));
  return { running, lost: adopted.filter((entry) => !entry.process), failed };
}

/** Whether a VM was about to sleep and must go on: where its generation is complete, its sleep is only finished. */
function isInterruptedPause({ snapshots }: RecoveryContext, { id, phase, pausing }: VmRecord): boolean {
  return phase === 'pausing' && snapshots.latest(id)?.generation !== pausing;
}

async function adopt(context: RecoveryContext, record: VmRecord, signal: AbortSignal): Promise<VmEntry> {
  const { resources, journal, log } = context;
  const { pausing, ...rest } = record;
  const entry = newEntry({ ...rest, phase: 'running' });
  if (!record.process || record.slot === undefined) return entry;
  try {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(ADOPT_TIMEOUT_MS)]);
    const vm = await resources.hypervisor.adopt(record.vmId, record.process, deadline);
    if (!vm) return entry;
    const adopted = { ...entry, process: vm, slot: slotOf(record.slot) };
    // An earlier agent may have ended while it stood still, for a sleep or for a fork.
    await goOn(adopted, log);
    if (pausing !== undefined) await journal.write(adopted.record);
    return adopted;
  } catch (error) {
    signal.throwIfAborted();
    log.error({ vm: record.id, err: error }, 'a VM whose process runs cannot be brought under control; it is ended');
  }
  return entry;
}

/** Ends processes and frees slots that no VM of the journal has. */
async function removeOrphans(
  { dir, owner, log, claimsDir }: RecoveryContext,
  running: readonly VmEntry[],
  signal: AbortSignal,
): Promise<void> {
  const pids = new Set(running.map((entry) => entry.process?.process.pid));
  for (const place of [`${dir.capsules}/`, `${dir.templateSnapshots}/`]) {
    for (const found of await processesNaming(place)) {
      if (pids.has(found.pid) || !(await isHypervisor(found.pid))) continue;
      log.warn({ pid: found.pid }, 'ending a hypervisor process that no record names');
      await killProcess(found);
    }
  }
  const inUse = new Set(running.flatMap((entry) => (entry.slot ? [entry.slot.index] : [])));
  await settleSlots({ owner, inUse, log, signal, ...(claimsDir ? { claimsDir } : {}) });
}

async function isHypervisor(pid: number): Promise<boolean> {
  const program = basename(await readlink(`/proc/${pid}/exe`).catch(() => ''));
  return /^(qemu-system-|firecracker|jailer)/.test(program);
}

function newEntry(record: VmRecord): VmEntry {
  return { record, ended: new AbortController() };
}
