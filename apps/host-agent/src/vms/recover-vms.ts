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
import type { VmResources } from '../templates/make-snapshot.ts';
import type { VmEntry } from './vm.ts';

const ADOPT_TIMEOUT_MS = 30_000;

export interface RecoveryContext {
  readonly dir: WrennDir;
  readonly journal: Journal;
  readonly resources: VmResources;
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
  const adopted = await Promise.all(
    records.filter(({ phase }) => phase === 'running').map((record) => adopt(context, record, signal)),
  );
  const running = adopted.filter((entry) => entry.process);
  await removeOrphans(context, running, signal);
  for (const entry of entries) {
    if (entry.kind === 'record' && (entry.record.phase === 'running' || entry.record.phase === 'failed')) continue;
    const id = entry.kind === 'record' ? entry.record.id : entry.id;
    await journal.end(id);
    log.info({ vm: id }, 'removed a VM that was not complete');
  }
  for (const { record } of running) log.info({ vm: record.id, pid: record.process?.pid }, 'adopted a running VM');
  const keptIds = new Set(running.map(({ record }) => record.id));
  for (const id of await resources.cgroups.list()) if (!keptIds.has(id)) await resources.cgroups.remove(id);
  const failed = records.filter(({ phase }) => phase === 'failed').map((record) => newEntry(record));
  return { running, lost: adopted.filter((entry) => !entry.process), failed };
}

async function adopt({ resources, log }: RecoveryContext, record: VmRecord, signal: AbortSignal): Promise<VmEntry> {
  const entry = newEntry(record);
  if (!record.process || record.slot === undefined) return entry;
  try {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(ADOPT_TIMEOUT_MS)]);
    const vm = await resources.hypervisor.adopt(record.id, record.process, deadline);
    if (vm) return { ...entry, process: vm, slot: slotOf(record.slot) };
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
