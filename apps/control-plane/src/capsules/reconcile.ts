import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { type Vm, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Logger } from 'pino';
import { recordCapsuleNews } from '../audit/operation-entries.ts';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import type { GuestPool } from '../guest/guest-pool.ts';
import type { Host } from '../hosts/host.ts';
import { recordHostConnected, recordHostHeard, recordHostProblem, recordLastHeard } from '../hosts/host-store.ts';
import type { HostEvents, Inventory } from '../hosts/watch.ts';
import { isBeingWorkedOn } from '../operations/operation-store.ts';
import { clearObjectKey, findCapsule, listHostCapsules, listMissing, mirrorGeneration } from './capsule-store.ts';
import { compareInventory } from './inventory.ts';
import { doomObjects, type Leftovers } from './leftovers.ts';
import { LostRaceError, type TransitionChanges, transition } from './transition.ts';
import { BUSY, type Judged, judge, judgeElsewhere, LEFT_BEHIND, type Verdict, type VmFacts } from './verdict.ts';
import { followHost, holdsGeneration } from './vm-facts.ts';

/** Console of a microVM that ended by itself, kept with its capsule. */
const CONSOLE_TAIL_BYTES = 65_536;
/** How often a capsule is looked at again whose operation had not ended when its host told of it. */
const BUSY_RETRY_MS = 500;

export interface ReconcileDeps {
  readonly db: Db;
  readonly guests: GuestPool;
  readonly leftovers: Leftovers;
  /** Ends a capsule on the platform's own account. */
  readonly destroy: (capsule: Capsule) => Promise<void>;
  /** The host is there, and its capsules are as it says. */
  readonly onSynced?: (hostId: string) => Promise<void>;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/**
 * Brings the database and one host to agree, from the host's events. Capsules that an operation works on are left to
 * it, and looked at when it has ended.
 */
export function reconcileHost(host: Host, deps: ReconcileDeps): HostEvents {
  const { db, leftovers, log } = deps;
  const reconciler = new Reconciler(host, deps);
  return {
    onConnected: async () => {
      const { facts } = host;
      if (facts) await recordHostConnected(db, host.id, facts);
      log.info({ host: host.id, address: host.address, agent: facts?.agentVersion }, 'host is online');
    },
    onVm: (vm) => reconciler.look(vm.id, vm),
    onDestroyed: (id) => reconciler.look(id, undefined),
    onSynced: async (vmIds) => {
      for (const { id } of await listHostCapsules(db, host.id)) {
        if (!vmIds.has(id)) await reconciler.look(id, undefined);
      }
      await recordHostHeard(db, host.id);
      // Lost while all this was compared; from here on none is.
      for (const id of await listMissing(db, host.id)) await reconciler.settle(id);
      await deps.onSynced?.(host.id);
    },
    onOnline: () => leftovers.nudge(),
    onLeftBehind: (id) => reconciler.settle(id),
    onInventory: (vms) => reconciler.compare(vms),
    onLost: () => recordLastHeard(db, [host]),
    onFailed: async (error) => {
      if (isProtocolMismatch(error)) await recordHostProblem(db, host.id, error.message);
    },
  };
}

class Reconciler {
  readonly #host: Host;
  readonly #deps: ReconcileDeps;
  /** Capsules that were busy when their host told of them. */
  readonly #later = new Set<string>();
  #looking = false;
  #comparing = false;
  #unknown = 0;

  constructor(host: Host, deps: ReconcileDeps) {
    this.#host = host;
    this.#deps = deps;
  }

  /** @param told what an event said; events come late, so that nothing is done on their word alone */
  async look(id: string, told: Vm | undefined): Promise<void> {
    const { db, log } = this.#deps;
    const capsule = await findCapsule(db, id);
    if (!capsule) {
      // Never removed unasked: a restored or a wrong database must not cost anybody their microVMs.
      if (told) log.warn({ host: this.#host.id, vm: id }, 'the host has a microVM that this database does not know');
      return;
    }
    if (BUSY.includes(capsule.status)) {
      // What an operation brings about, it records itself.
      const isNews = !this.#host.online || !told || told.state === VmState.FAILED;
      if (isNews && (capsule.status !== 'stopping' || !this.#host.online)) this.#lookLater(id);
    } else if (this.#judge(capsule, told).do !== 'nothing') await this.#settle(id);
    else if (told && capsule.hostId === this.#host.id) await this.#mirror(capsule, told);
  }

  /** @returns how many of them this database does not know */
  async compare(vms: Inventory): Promise<number> {
    const { db, log } = this.#deps;
    const { differing, unknown } = await compareInventory(db, vms, this.#host.id, (capsule, vm) =>
      this.#judge(capsule, vm),
    );
    if (unknown.length !== this.#unknown && unknown.length > 0) {
      const sample = { count: unknown.length, vms: unknown.slice(0, 10) };
      log.warn({ host: this.#host.id, ...sample }, 'the host has microVMs that this database does not know');
    }
    this.#unknown = unknown.length;
    // Apart from the heartbeat, whose answer does not wait for the host.
    if (differing.length > 0 && this.#host.online && !this.#comparing) {
      this.#comparing = true;
      this.#settleAll(differing).finally(() => {
        this.#comparing = false;
      });
    }
    return unknown.length;
  }

  /** Looks at a capsule again that was left in the middle of an operation. */
  async settle(id: string): Promise<void> {
    await this.#settle(id);
  }

  #judge(capsule: Judged & Pick<Capsule, 'hostId'>, vm: VmFacts | undefined): Verdict {
    return capsule.hostId === this.#host.id ? judge(capsule, vm) : judgeElsewhere(capsule, vm);
  }

  async #settleAll(ids: readonly string[]): Promise<void> {
    const { signal, log } = this.#deps;
    for (const id of ids) {
      if (signal.aborted) return;
      await this.#settle(id).catch((err: unknown) => {
        if (!signal.aborted) log.warn({ err, capsule: id }, 'could not compare a capsule with its host');
      });
    }
  }

  /** Asks the host itself: an event may be of before the last operation. */
  async #settle(id: string): Promise<void> {
    const { db, signal } = this.#deps;
    const seen = await findCapsule(db, id);
    if (!seen) return;
    if (BUSY.includes(seen.status) && (await isBeingWorkedOn(db, id))) {
      this.#lookLater(id);
      return;
    }
    const vm = await this.#host.getVm(id, signal);
    await this.#act(seen, vm);
  }

  /** @param seen the capsule as it was before the host was asked */
  async #act(seen: Capsule, vm: Vm | undefined): Promise<void> {
    const { db, guests } = this.#deps;
    const { id } = seen;
    const verdict = this.#judge(seen, vm);
    switch (verdict.do) {
      case 'nothing':
        if (vm && seen.hostId === this.#host.id) await this.#mirror(seen, vm);
        break;
      case 'follow':
        await this.#follow(seen, vm);
        break;
      case 'fail':
        await failUnlessLost(db, seen, { statusReason: verdict.reason, hostIp: null });
        guests.evict(id);
        break;
      case 'record crash':
        await this.#recordCrash(seen, vm, verdict.keep);
        break;
      case 'end':
        await this.#deps.destroy(seen);
        break;
      case 'remove':
        this.#onHost(id, (signal) => this.#host.destroyVm(id, signal));
        break;
      case 'put to sleep':
        this.#deps.log.warn({ host: this.#host.id, vm: id }, 'a capsule of another host runs here too; it is paused');
        this.#onHost(id, async (signal) => {
          await this.#host.pauseVm(id, (vm?.generation ?? 0) + 1, signal);
        });
        break;
      case 'forget':
        this.#onHost(id, (signal) => this.#host.forgetVm(id, vm?.generation ?? seen.generation, signal));
        break;
    }
  }

  async #follow(seen: Capsule, vm: Vm | undefined): Promise<void> {
    const { db, guests, leftovers } = this.#deps;
    const { objectKey } = seen;
    const now = await db.transaction(async (tx) => {
      const moved = await followHost(tx, seen, vm, LEFT_BEHIND, this.#host.id);
      if (moved) await recordCapsuleNews(tx, seen.status, moved);
      return moved;
    });
    if (!now) return;
    if (now.status !== 'running') guests.evict(seen.id);
    if (now.status !== 'running' || !objectKey) return;
    // It woke on its host after all, so what is in the object store is of the past.
    await db.transaction(async (tx) => {
      if (await clearObjectKey(tx, now)) await doomObjects(tx, [objectKey]);
    });
    leftovers.nudge();
  }

  /** Its last words are kept with the capsule. The host keeps what it can be resumed from, and nothing else. */
  async #recordCrash(seen: Capsule, vm: Vm | undefined, keep: boolean): Promise<void> {
    const { db, guests, signal, log } = this.#deps;
    const { id } = seen;
    const consoleTail = await this.#host
      .readConsole(id, CONSOLE_TAIL_BYTES, signal)
      .then(Buffer.from, (err: unknown) => {
        log.warn({ err, capsule: id }, 'could not read the console');
        return null;
      });
    const statusReason = vm?.reason || 'its microVM ended';
    const moved = await failUnlessLost(db, seen, { statusReason, consoleTail, hostIp: null });
    if (!moved) return;
    guests.evict(id);
    if (!keep) this.#onHost(id, (stop) => this.#host.destroyVm(id, stop));
  }

  /** What the host says of a generation, of a capsule that is as it should be. */
  async #mirror(seen: Capsule, vm: Vm): Promise<void> {
    if (vm.state !== VmState.PAUSED && vm.state !== VmState.RUNNING && vm.state !== VmState.FAILED) return;
    if (!holdsGeneration(vm, seen) || seen.objectKey !== null) return;
    const told = {
      generation: vm.generation,
      snapshotBytes: Number(vm.snapshotBytes),
      snapshotProblem: vm.snapshotProblem === '' ? null : vm.snapshotProblem,
    };
    const { generation, snapshotBytes, snapshotProblem } = seen;
    const isSame =
      told.generation === generation &&
      told.snapshotBytes === snapshotBytes &&
      told.snapshotProblem === snapshotProblem;
    if (!isSame) await mirrorGeneration(this.#deps.db, seen, told);
  }

  /** Apart from the events, which must not wait for it. When it fails, the next connection's events ask again. */
  #onHost(id: string, run: (signal: AbortSignal) => Promise<void>): void {
    const { signal, log } = this.#deps;
    run(signal).catch((err: unknown) => {
      if (!signal.aborted) log.warn({ err, vm: id }, 'could not remove what the host has of a capsule');
    });
  }

  #lookLater(id: string): void {
    this.#later.add(id);
    if (this.#looking) return;
    this.#looking = true;
    this.#lookAgain().finally(() => {
      this.#looking = false;
    });
  }

  async #lookAgain(): Promise<void> {
    const { db, signal, log } = this.#deps;
    while (this.#later.size > 0) {
      await delay(BUSY_RETRY_MS, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      for (const id of [...this.#later]) {
        try {
          if (await isBeingWorkedOn(db, id)) continue;
          this.#later.delete(id);
          await this.#settle(id);
        } catch (err) {
          // A silent host tells of everything again when it is back.
          if (!signal.aborted) log.warn({ err, capsule: id }, 'could not compare a capsule with its host');
        }
      }
    }
  }
}

function isProtocolMismatch(error: unknown): error is WrennError {
  return error instanceof WrennError && error.code === 'protocol_mismatch';
}

/** @returns undefined when somebody else moved the capsule first */
async function failUnlessLost(db: Db, seen: Capsule, changes: TransitionChanges): Promise<Capsule | undefined> {
  try {
    return await db.transaction(async (tx) => {
      const failed = await transition(tx, seen, 'error', changes);
      await recordCapsuleNews(tx, seen.status, failed);
      return failed;
    });
  } catch (error) {
    if (error instanceof LostRaceError) return undefined;
    throw error;
  }
}
