import { type Vm, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import type { GuestPool } from '../guest/guest-pool.ts';
import type { Host } from '../hosts/host.ts';
import { recordHostOnline, recordHostStatus } from '../hosts/host-store.ts';
import type { HostEvents } from '../hosts/watch.ts';
import { findCapsule, listHostCapsules } from './capsule-store.ts';
import { CONSOLE_TAIL_BYTES, vmChanges } from './lifecycle.ts';
import { transitionWhen } from './transition.ts';

export interface ReconcileDeps {
  readonly db: Db;
  readonly guests: GuestPool;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/**
 * Brings the database and one host to agree, from the host's events. The host is right about which microVMs there are,
 * the database about which there should be. Capsules that are being started or ended are left to their operation.
 */
export function reconcileHost(host: Host, deps: ReconcileDeps): HostEvents {
  const { db, log } = deps;
  return {
    onConnected: async () => {
      await recordHostOnline(db, host.id, host.facts?.agentVersion ?? '');
      log.info({ host: host.id, address: host.address, agent: host.facts?.agentVersion }, 'host is online');
    },
    onVm: (vm) => reconcileVm(host, vm, deps),
    onDestroyed: (id) => markLost(id, 'its microVM was destroyed on its host', deps),
    onSynced: async (vmIds) => {
      for (const capsule of await listHostCapsules(db, host.id)) {
        if (!vmIds.has(capsule.id)) await markLost(capsule.id, 'its host no longer has its microVM', deps);
      }
    },
    onSilent: async () => {
      log.warn({ host: host.id, address: host.address }, 'host is silent');
      await recordHostStatus(db, host.id, 'unreachable');
      for (const { id } of await listHostCapsules(db, host.id)) {
        const statusReason = 'its host does not answer';
        await transitionWhen(db, id, ({ status }) => status === 'running', 'missing', { statusReason });
      }
    },
  };
}

async function reconcileVm(host: Host, vm: Vm, deps: ReconcileDeps): Promise<void> {
  const { db, log } = deps;
  const capsule = await findCapsule(db, vm.id);
  if (!capsule) {
    // Never removed unasked: a restored or a wrong database must not cost anybody their microVMs.
    log.warn({ host: host.id, vm: vm.id }, 'the host has a microVM that this database does not know');
    return;
  }
  switch (capsule.status) {
    case 'running':
    case 'missing':
      if (vm.state === VmState.FAILED) await recordFailure(host, vm, capsule, deps);
      else if (vm.state === VmState.RUNNING) {
        await transitionWhen(db, vm.id, ({ status }) => status === 'missing', 'running', vmChanges(vm));
      }
      break;
    case 'stopped':
    case 'error':
      if (vm.state !== VmState.STOPPING) removeVm(host, vm.id, deps);
      break;
    default:
      break;
  }
}

/** A microVM ended by itself. Its last words are kept with the capsule; the host keeps nothing. */
async function recordFailure(host: Host, vm: Vm, capsule: Capsule, deps: ReconcileDeps): Promise<void> {
  const { db, guests, signal, log } = deps;
  const consoleTail = await host.readConsole(vm.id, CONSOLE_TAIL_BYTES, signal).then(Buffer.from, (err: unknown) => {
    log.warn({ err, capsule: capsule.id }, 'could not read the console');
    return null;
  });
  const statusReason = vm.reason || 'its microVM ended';
  const isUp = ({ status }: Capsule) => status === 'running' || status === 'missing';
  await transitionWhen(db, capsule.id, isUp, 'error', { statusReason, consoleTail });
  guests.evict(capsule.id);
  removeVm(host, vm.id, deps);
}

async function markLost(id: string, statusReason: string, { db, guests }: ReconcileDeps): Promise<void> {
  const isUp = ({ status }: Capsule) => status === 'running' || status === 'missing';
  const moved = await transitionWhen(db, id, isUp, 'error', { statusReason });
  if (moved) guests.evict(id);
}

/** Apart from the events, which must not wait for it. When it fails, the next connection's events ask again. */
function removeVm(host: Host, id: string, { signal, log }: ReconcileDeps): void {
  host.destroyVm(id, signal).catch((err: unknown) => {
    if (!signal.aborted) log.warn({ err, vm: id }, 'could not remove a microVM');
  });
}
