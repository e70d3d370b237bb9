import { killProcess } from '@wrenn/hypervisor/vm-process';
import type { Logger } from 'pino';
import { processesInNamespace } from '../processes/processes.ts';
import {
  type ClaimOwner,
  isVanished,
  listClaims,
  releaseClaim,
  removePartialClaims,
  takeOverClaim,
  withClaimsLock,
} from './claims.ts';
import { removeNamespace } from './namespace.ts';
import { type Slot, slotOf } from './slot.ts';

export interface SettleSlotsOptions {
  readonly owner: ClaimOwner;
  /** Slots that VMs of this agent use, by the journal. */
  readonly inUse: ReadonlySet<number>;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly claimsDir?: string;
}

/**
 * Brings the machine's slots in order when an agent starts: it takes over the slots that its VMs use, removes those
 * of its earlier self that no VM uses, and those of other agents that are gone where nothing runs any more.
 */
export async function settleSlots(options: SettleSlotsOptions): Promise<void> {
  const { owner, inUse, claimsDir, signal } = options;
  await withClaimsLock(
    async () => {
      await removePartialClaims(claimsDir);
      for (const claim of await listClaims(claimsDir)) {
        if (inUse.has(claim.index)) continue;
        const slot = slotOf(claim.index);
        const own = claim.owner?.wrennDir === owner.wrennDir;
        if (own || isVanished(claim)) await clear(slot, own, options);
      }
      for (const index of inUse) await takeOverClaim(index, owner, claimsDir);
    },
    signal,
    claimsDir,
  );
}

/** Whether the slot of a VM in the journal is still this agent's; another may have taken it after the VM ended. */
export async function stillOwned(index: number, owner: ClaimOwner, claimsDir?: string): Promise<boolean> {
  const claim = (await listClaims(claimsDir)).find((entry) => entry.index === index);
  return !claim?.owner || claim.owner.wrennDir === owner.wrennDir;
}

async function clear(slot: Slot, killInside: boolean, { log, claimsDir }: SettleSlotsOptions): Promise<void> {
  const inside = await processesInNamespace(slot.namespacePath);
  if (inside.length > 0 && !killInside) return;
  for (const found of inside) {
    log.warn({ slot: slot.index, pid: found.pid }, 'ending a process that no VM of the journal owns');
    await killProcess(found);
  }
  await removeNamespace(slot);
  await releaseClaim(slot.index, claimsDir);
  log.info({ slot: slot.index }, 'removed a network slot that nobody uses');
}
