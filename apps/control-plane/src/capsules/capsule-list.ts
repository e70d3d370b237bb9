import { WrennError } from '@wrenn/protocol/errors';
import { isId } from '@wrenn/protocol/ids';
import { CAPSULE_STATUSES, type CapsuleStatus, type ListCapsulesQuery } from '@wrenn/protocol/rest/capsule';
import { and, desc, eq, getTableColumns, gte, inArray, lt, type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type Capsule, capsules } from '../database/schema.ts';
import { comesAfter, type Page, type Position, pageOf, positionAt } from '../http/cursor.ts';
import { findUsableSnapshot } from '../snapshots/snapshot-store.ts';
import { BUSY } from './verdict.ts';

/** A capsule without what only one of them is asked for. */
export type ListedCapsule = Omit<Capsule, 'consoleTail'>;

const { consoleTail: _consoleTail, ...LISTED } = getTableColumns(capsules);
const NEWEST_FIRST = [desc(capsules.createdAt), desc(capsules.id)] as const;

/** States that a list leaves out unless it is asked for them. */
const ENDED: readonly CapsuleStatus[] = ['stopped', 'error'];

/**
 * One page of a team's capsules, newest first.
 *
 * @throws WrennError `invalid_request` for a state that there is not, or a cursor that no list gave
 */
export async function listCapsules(
  db: Db,
  teamId: string,
  query: ListCapsulesQuery,
): Promise<Page<ListedCapsule & Position>> {
  const { limit, cursor } = query;
  const filter = and(
    eq(capsules.teamId, teamId),
    query.template === undefined ? undefined : await madeOf(db, teamId, query.template),
    query.host === undefined ? undefined : eq(capsules.hostId, query.host),
    query.created_after === undefined ? undefined : gte(capsules.createdAt, instantOf(query.created_after)),
    query.created_before === undefined ? undefined : lt(capsules.createdAt, instantOf(query.created_before)),
    comesAfter(capsules.createdAt, capsules.id, cursor),
    ...(query.label ?? []).map(hasLabel),
  );
  // Each state by itself is in order in an index, so a page costs as many rows as it has, however many others there are.
  const byStatus = inGroups(statusesOf(query.status)).map((statuses) =>
    db
      .select({ id: capsules.id, createdAt: capsules.createdAt })
      .from(capsules)
      .where(and(filter, inArray(capsules.status, statuses)))
      .orderBy(...NEWEST_FIRST)
      .limit(limit + 1)
      .getSQL(),
  );
  const found = sql`(SELECT id FROM (${sql.join(
    byStatus.map((one) => sql`(${one})`),
    sql` UNION ALL `,
  )}) AS found ORDER BY created_at DESC, id DESC LIMIT ${limit + 1})`;
  const rows = await db
    .select({ ...LISTED, at: positionAt(capsules.createdAt) })
    .from(capsules)
    .where(inArray(capsules.id, found))
    .orderBy(...NEWEST_FIRST);
  return pageOf(rows, limit, (row) => row);
}

/** @param status states with commas between them, or `all`; undefined: those that have not ended */
function statusesOf(status: string | undefined): readonly CapsuleStatus[] {
  if (status === undefined) return CAPSULE_STATUSES.filter((candidate) => !ENDED.includes(candidate));
  if (status === 'all') return CAPSULE_STATUSES;
  const wanted = status.split(',').map((name) => {
    const known = CAPSULE_STATUSES.find((candidate) => candidate === name.trim());
    if (!known) throw new WrennError('invalid_request', { problem: `status "${name}" is not a state of capsules` });
    return known;
  });
  return [...new Set(wanted)];
}

/** Those that capsules only pass through together: few are in them at any time, and each group takes time to plan. */
function inGroups(statuses: readonly CapsuleStatus[]): CapsuleStatus[][] {
  const lasting = statuses.filter((status) => !BUSY.includes(status));
  const passing = statuses.filter((status) => BUSY.includes(status));
  return [...lasting.map((status) => [status]), ...(passing.length > 0 ? [passing] : [])];
}

/** Capsules of a template; of a snapshot, where the team has one of that name or id. */
async function madeOf(db: Db, teamId: string, template: string): Promise<SQL> {
  const snapshot = isId('snap', template) ? { id: template } : await findUsableSnapshot(db, teamId, template);
  return snapshot ? eq(capsules.snapshotId, snapshot.id) : eq(capsules.template, template);
}

/** @param label `key=value`, or `key` for any value */
function hasLabel(label: string): SQL {
  const at = label.indexOf('=');
  if (at < 0) return sql`${capsules.labels} ? ${label}`;
  return sql`${capsules.labels} @> ${JSON.stringify({ [label.slice(0, at)]: label.slice(at + 1) })}::jsonb`;
}

function instantOf(text: string): SQL {
  return sql`${text}::timestamptz`;
}
