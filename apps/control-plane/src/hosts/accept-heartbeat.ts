import { WrennError } from '@wrenn/protocol/errors';
import type { Heartbeat, HeartbeatAnswer } from '@wrenn/protocol/rest/hosts';
import { eq, sql } from 'drizzle-orm';
import type { HostAgent } from '../access/principal.ts';
import type { Db } from '../database/database.ts';
import { type HostRow, hosts } from '../database/host-schema.ts';
import { judgeSender } from './heartbeat-sender.ts';
import { auditHost } from './host-credentials.ts';

/** Beyond this certificates and tokens begin and end at other times than both sides think. */
const MAX_CLOCK_OFFSET_MS = 30_000;
const TELL_AGAIN_MS = 3_600_000;

export interface HeartbeatDeps {
  readonly db: Db;
  /** What a heartbeat means for the platform. */
  readonly record: (hostId: string, heartbeat: Heartbeat) => Promise<HeartbeatAnswer>;
}

/**
 * Takes a heartbeat of the agent whose host it is, once; one that comes a second time on its way is only answered.
 *
 * @throws WrennError `host_credential_shared` when another agent has taken the place of this one; `host_deleted`
 */
export async function acceptHeartbeat(
  { db, record }: HeartbeatDeps,
  { id }: Pick<HostAgent, 'id'>,
  heartbeat: Heartbeat,
  from: string,
): Promise<HeartbeatAnswer> {
  const offsetMs = new Date(heartbeat.sent_at).getTime() - Date.now();
  const verdict = await db.transaction((tx) => takeIn(tx, id, heartbeat, offsetMs, from));
  if (verdict.kind === 'shared') throw new WrennError('host_credential_shared', { id });
  if (verdict.kind === 'repeated') {
    return { status: verdict.status, renew: false, control_planes: [], clock_offset_ms: offsetMs };
  }
  const answer = await record(id, heartbeat);
  return { ...answer, clock_offset_ms: offsetMs };
}

type TakenIn = { readonly kind: 'new' | 'repeated' | 'shared'; readonly status: HostRow['status'] };

async function takeIn(tx: Db, id: string, heartbeat: Heartbeat, offsetMs: number, from: string): Promise<TakenIn> {
  const [host] = await tx.select().from(hosts).where(eq(hosts.id, id)).for('no key update');
  if (!host || host.deletedAt) throw new WrennError('host_deleted', { id });
  const { status } = host;
  const sentAt = new Date(heartbeat.sent_at);
  const { boot_id: bootId, sequence } = heartbeat;
  const verdict =
    bootId === undefined || sequence === undefined ? 'new' : judgeSender(host, { bootId, sequence, sentAt });
  if (verdict === 'repeated') return { kind: 'repeated', status };
  if (verdict === 'shared') {
    if (host.sharedAt && host.sharedAt.getTime() > Date.now() - TELL_AGAIN_MS) return { kind: 'shared', status };
    await tx.update(hosts).set({ sharedAt: sql`now()` }).where(eq(hosts.id, id));
    await auditHost(tx, host, 'credentials_shared', 'warning', { boot_id: bootId, now: host.bootId }, from);
    return { kind: 'shared', status };
  }
  await tx
    .update(hosts)
    .set({
      ...(verdict === 'new' ? {} : verdict),
      ...(sequence === undefined ? {} : { heartbeatSequence: sequence, heartbeatSentAt: sentAt }),
      clockOffsetMs: offsetMs,
    })
    .where(eq(hosts.id, id));
  await auditClock(tx, host, offsetMs, from);
  return { kind: 'new', status };
}

/** When the clock of a host goes wrong, and when it is right again. */
async function auditClock(tx: Db, host: HostRow, offsetMs: number, from: string): Promise<void> {
  const isOff = Math.abs(offsetMs) > MAX_CLOCK_OFFSET_MS;
  const wasOff = Math.abs(host.clockOffsetMs ?? 0) > MAX_CLOCK_OFFSET_MS;
  if (isOff === wasOff) return;
  const [action, status] = isOff ? (['clock_off', 'warning'] as const) : (['clock_right', 'info'] as const);
  await auditHost(tx, host, action, status, { offset_ms: offsetMs }, from);
}
