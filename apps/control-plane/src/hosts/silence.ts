import { setTimeout as delay } from 'node:timers/promises';
import { and, eq, inArray, isNull, notInArray, sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import { recordCapsuleNews } from '../audit/operation-entries.ts';
import { transitionWhen } from '../capsules/transition.ts';
import type { Db } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import { type Capsule, capsules } from '../database/schema.ts';
import type { Host } from './host.ts';
import { isSilentFor, isThere, recordHostDown, recordHostUp, recordLastHeard } from './host-store.ts';

/** How often is looked, unless less silence is allowed. */
const LOOK_MS = 1000;
/** One that is so much late stood still itself, or its database did. */
const STALL_MS = 1000;
/** So often in that time is written down that a host is there. */
const TOUCHES = 9;
const CAPSULES_AT_ONCE = 500;

export interface SilenceOptions {
  readonly db: Db;
  readonly hosts: () => readonly Host[];
  /** How long a host may give neither a heartbeat nor events before its capsules count as missing. */
  readonly silenceMs: number;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/**
 * Keeps in the database which hosts are there. Every control plane writes down whose events it hears, and each looks for
 * those that none has heard of; each change is recorded by one of them.
 */
export async function watchSilence(options: SilenceOptions): Promise<void> {
  const { silenceMs, signal, log } = options;
  const lookMs = Math.min(LOOK_MS, silenceMs / 3);
  // Whoever could not look, or write, for a while does not know who was silent meanwhile.
  let sinceMs = performance.now();
  let lookedMs = sinceMs;
  while (!signal.aborted) {
    try {
      await touchHeard(options);
      const nowMs = performance.now();
      if (nowMs - lookedMs > lookMs + Math.max(STALL_MS, silenceMs / 3)) sinceMs = nowMs;
      if (nowMs - sinceMs >= silenceMs) {
        await findSilent(options);
        await loseCapsules(options);
      }
    } catch (err) {
      sinceMs = performance.now();
      if (!signal.aborted) log.warn({ err }, 'could not look for silent hosts');
    }
    lookedMs = performance.now();
    await delay(lookMs, undefined, { signal }).catch(() => undefined);
  }
}

/** Comparing what many capsules are with what they should be may take longer than a host may be silent. */
function heardHosts({ hosts: all }: SilenceOptions): Host[] {
  return all().filter(({ online, comparing }) => online || comparing);
}

async function touchHeard(options: SilenceOptions): Promise<void> {
  const { db, silenceMs } = options;
  const heard = heardHosts(options);
  await recordLastHeard(db, heard, silenceMs / TOUCHES);
  const ids = heard.filter(({ online }) => online).map(({ id }) => id);
  if (ids.length === 0) return;
  // Found silent, by another or while what it has was compared, just when it came back.
  const returned = await db
    .select({ id: hosts.id })
    .from(hosts)
    .where(and(inArray(hosts.id, ids), eq(hosts.status, 'unreachable'), isNull(hosts.problem)));
  for (const { id } of returned) await db.transaction((tx) => recordHostUp(tx, id));
}

async function findSilent(options: SilenceOptions): Promise<void> {
  const { db, silenceMs, log } = options;
  const own = heardHosts(options).map(({ id }) => id);
  const silent = await db
    .select({ id: hosts.id, address: hosts.address })
    .from(hosts)
    .where(and(isThere, isSilentFor(silenceMs), own.length > 0 ? notInArray(hosts.id, own) : sql`true`));
  for (const { id, address } of silent) {
    if (await recordHostDown(db, id, silenceMs)) log.warn({ host: id, address }, 'host is silent');
  }
}

/** Also what a control plane left that ended in the middle of it. */
async function loseCapsules({ db, signal }: SilenceOptions): Promise<void> {
  for (;;) {
    const lost = await db
      .select({ id: capsules.id })
      .from(capsules)
      .innerJoin(hosts, eq(hosts.id, capsules.hostId))
      .where(and(eq(hosts.status, 'unreachable'), eq(capsules.status, 'running')))
      .limit(CAPSULES_AT_ONCE);
    for (const { id } of lost) {
      signal.throwIfAborted();
      await loseCapsule(db, id);
    }
    if (lost.length < CAPSULES_AT_ONCE) return;
  }
}

async function loseCapsule(db: Db, id: string): Promise<void> {
  const isUp = ({ status }: Capsule) => status === 'running';
  await db.transaction(async (tx) => {
    // The host may be back since it was looked for. Whoever records that waits for this, or this for them.
    const [lost] = await tx
      .select({ id: hosts.id })
      .from(hosts)
      .innerJoin(capsules, eq(capsules.hostId, hosts.id))
      .where(and(eq(capsules.id, id), eq(hosts.status, 'unreachable')))
      .for('share', { of: hosts });
    if (!lost) return;
    const moved = await transitionWhen(tx, id, isUp, 'missing', { statusReason: 'its host does not answer' });
    if (moved) await recordCapsuleNews(tx, 'running', moved);
  });
}
