import type { CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import type { EventType } from '@wrenn/protocol/rest/channels';
import { and, desc, eq, ne, or, sql } from 'drizzle-orm';
import { type Actor, SYSTEM } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import { apiKeys, users } from '../database/people-schema.ts';
import { type Capsule, operations } from '../database/schema.ts';
import { publishEvent } from '../events/publish.ts';
import type { InsertedCapsule } from './capsule-store.ts';

/** States out of which a capsule was not told of as running, so that it is news that it does. */
const NOT_RUNNING: readonly CapsuleStatus[] = ['starting', 'resuming', 'missing', 'paused', 'hibernated', 'error'];
/** States that a failed resume or hibernation goes back to, which nothing was told of meanwhile. */
const FELL_BACK: ReadonlySet<string> = new Set(['resuming>paused', 'hibernating>paused', 'resuming>hibernated']);

/** What is told of a move; undefined: it is on the way to something, or back to what was told of before. */
export function eventOfMove(from: CapsuleStatus, to: CapsuleStatus): EventType | undefined {
  if (FELL_BACK.has(`${from}>${to}`)) return undefined;
  switch (to) {
    case 'running':
      return NOT_RUNNING.includes(from) ? 'capsule.running' : undefined;
    case 'paused':
      return 'capsule.paused';
    case 'hibernated':
      return 'capsule.hibernated';
    case 'missing':
      return 'capsule.missing';
    case 'error':
      return 'capsule.error';
    case 'stopped':
      return 'capsule.destroyed';
    default:
      return undefined;
  }
}

/** Tells of a capsule's move, in the transaction of that move. @param capsule as it is now */
export async function publishMove(tx: Db, type: EventType, from: CapsuleStatus, capsule: Capsule): Promise<void> {
  const { id, teamId, statusReason } = capsule;
  await publishEvent(tx, {
    ...{ type, teamId, actor: await actorAtWork(tx, id), resource: { type: 'capsule', id } },
    data: { ...factsOf(capsule), from, ...(statusReason === null ? {} : { reason: statusReason }) },
  });
}

/** Tells of a new capsule. @param actor id of who asked for it */
export async function publishCreated(tx: Db, capsule: InsertedCapsule, actor: string): Promise<void> {
  if (!capsule.isAwaited) return;
  const { id, teamId, forkedFrom } = capsule;
  await publishEvent(tx, {
    ...{ type: 'capsule.created', teamId, actor: await actorById(tx, actor), resource: { type: 'capsule', id } },
    data: { ...factsOf(capsule), ...(forkedFrom === null ? {} : { forked_from: forkedFrom }) },
  });
}

/** Tells of a fork that was made. */
export async function publishForked(tx: Db, source: Capsule, children: readonly string[]): Promise<void> {
  const { id, teamId } = source;
  await publishEvent(tx, {
    ...{ type: 'capsule.forked', teamId, actor: await actorAtWork(tx, id), resource: { type: 'capsule', id } },
    data: { ...factsOf(source), children },
  });
}

function factsOf({ template, labels }: Capsule): Record<string, unknown> {
  return { template, ...(Object.keys(labels).length > 0 ? { metadata: labels } : {}) };
}

/** Who asked for what is being done to a capsule right now; the platform itself where nothing is. */
async function actorAtWork(tx: Db, capsuleId: string): Promise<Actor> {
  const isChild = and(
    eq(operations.kind, 'capsule.fork'),
    sql`${operations.args} @> ${JSON.stringify({ children: [capsuleId] })}::jsonb`,
  );
  const [operation] = await tx
    .select({ actor: operations.actor })
    .from(operations)
    .where(
      and(
        eq(operations.state, 'running'),
        // Changes nothing about the capsule.
        ne(operations.kind, 'capsule.snapshot'),
        or(eq(operations.capsuleId, capsuleId), isChild),
      ),
    )
    .orderBy(desc(operations.createdAt))
    .limit(1);
  return operation ? actorById(tx, operation.actor) : SYSTEM;
}

/** @param id as operations keep it: of a user, of a key, or `system` */
export async function actorById(tx: Db, id: string): Promise<Actor> {
  if (id.startsWith('key-')) {
    const [key] = await tx.select({ name: apiKeys.name }).from(apiKeys).where(eq(apiKeys.id, id));
    return { type: 'api_key', id, name: key?.name ?? 'deleted key' };
  }
  if (id.startsWith('usr-')) {
    const [user] = await tx.select({ name: users.name }).from(users).where(eq(users.id, id));
    return { type: 'user', id, name: user?.name ?? 'deleted user' };
  }
  return SYSTEM;
}
