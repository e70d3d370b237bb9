import { VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { HOST_VM_STATES } from '@wrenn/protocol/rest/hosts';
import { and, eq, inArray, ne } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type Capsule, capsules } from '../database/schema.ts';
import type { Inventory } from '../hosts/watch.ts';
import { BUSY, type Verdict, type VmFacts } from './verdict.ts';

const STATES: Readonly<Record<(typeof HOST_VM_STATES)[number], VmState>> = {
  starting: VmState.STARTING,
  running: VmState.RUNNING,
  stopping: VmState.STOPPING,
  failed: VmState.FAILED,
  pausing: VmState.PAUSING,
  paused: VmState.PAUSED,
};

/** A capsule as far as it is compared. */
type Compared = Pick<Capsule, 'id' | 'hostId' | 'status' | 'generation'>;

export interface Comparison {
  /** Capsules that are not what the host says. */
  readonly differing: readonly string[];
  /** MicroVMs that are nobody's capsule. */
  readonly unknown: readonly string[];
}

const columns = {
  ...{ id: capsules.id, hostId: capsules.hostId },
  ...{ status: capsules.status, generation: capsules.generation },
};

/** Compares what a host says it has with its capsules, in both directions, and reads those of no other host. */
export async function compareInventory(
  db: Db,
  vms: Inventory,
  hostId: string,
  judge: (capsule: Compared, vm: VmFacts | undefined) => Verdict,
): Promise<Comparison> {
  const told = new Map(vms.map(({ id, state, generation }) => [id, { state: STATES[state], generation }]));
  const own: Compared[] = await db
    .select(columns)
    .from(capsules)
    .where(and(eq(capsules.hostId, hostId), ne(capsules.status, 'stopped')));
  const ownIds = new Set(own.map(({ id }) => id));
  const others = [...told.keys()].filter((id) => !ownIds.has(id));
  const strange: Compared[] =
    others.length === 0 ? [] : await db.select(columns).from(capsules).where(inArray(capsules.id, others));
  const known = new Set(strange.map(({ id }) => id));
  const isDiffering = (capsule: Compared) =>
    !BUSY.includes(capsule.status) && judge(capsule, told.get(capsule.id)).do !== 'nothing';
  return {
    differing: [...own, ...strange].filter(isDiffering).map(({ id }) => id),
    unknown: others.filter((id) => !known.has(id)),
  };
}
