import { and, asc, desc, eq, gte, inArray, isNull, lt, or, type SQL, sql } from 'drizzle-orm';
import { type AuditRow, auditLog } from '../database/audit-schema.ts';
import type { Db } from '../database/database.ts';
import type { TimePosition, WrittenPosition } from './audit-cursor.ts';

/** Whose entries. */
export type AuditView =
  | { readonly of: 'team'; readonly teamId: string; readonly scopes: readonly ('team' | 'admin')[] }
  /** Of the platform, of no team, and of the platform's own team. */
  | { readonly of: 'platform'; readonly teamId: string };

/** Which of them. Undefined and empty: all. */
export interface AuditFilter {
  readonly resourceTypes?: readonly string[] | undefined;
  readonly actions?: readonly string[] | undefined;
  readonly actorId?: string | undefined;
  readonly status?: AuditRow['status'] | undefined;
  readonly resourceId?: string | undefined;
  readonly from?: Date | undefined;
  /** Before this instant. */
  readonly to?: Date | undefined;
}

/**
 * Newest first. A walk from page to page has each entry once that was there when it began; what is written meanwhile it
 * may have or not.
 */
export async function listBefore(
  db: Db,
  view: AuditView,
  filter: AuditFilter,
  before: TimePosition | undefined,
  limit: number,
): Promise<AuditRow[]> {
  return db
    .select()
    .from(auditLog)
    .where(and(matches(view, filter), before ? isBefore(before) : undefined))
    .orderBy(desc(auditLog.createdAt), desc(auditLog.id))
    .limit(limit);
}

/** Oldest first, after an entry. */
export async function listFrom(
  db: Db,
  view: AuditView,
  filter: AuditFilter,
  after: { readonly createdAt: Date; readonly id: string } | undefined,
  limit: number,
): Promise<AuditRow[]> {
  const isAfter = after && sql`(${auditLog.createdAt}, ${auditLog.id}) > (${instant(after.createdAt)}, ${after.id})`;
  return db
    .select()
    .from(auditLog)
    .where(and(matches(view, filter), isAfter))
    .orderBy(asc(auditLog.createdAt), asc(auditLog.id))
    .limit(limit);
}

/**
 * What was written after a place, in the order of the transactions that wrote it. An entry becomes visible with its
 * transaction, which may be later than entries with a later time. So nothing is shown of transactions that began after
 * the oldest one that still goes on: all before that one have ended, and none of them can add anything.
 *
 * @returns the entries, and the place to go on from
 */
export async function listWrittenAfter(
  db: Db,
  view: AuditView,
  filter: AuditFilter,
  after: WrittenPosition,
  limit: number,
): Promise<{ rows: AuditRow[]; next: WrittenPosition }> {
  const horizon = await writtenHorizon(db);
  const { writtenIn, entry } = after;
  const isAfter = entry
    ? sql`(${auditLog.writtenIn}, ${auditLog.createdAt}, ${auditLog.id})
        > (${writtenIn}::xid8, ${instant(entry.createdAt)}, ${entry.id})`
    : sql`${auditLog.writtenIn} >= ${writtenIn}::xid8`;
  const rows = await db
    .select()
    .from(auditLog)
    .where(and(matches(view, filter), isAfter, sql`${auditLog.writtenIn} < ${horizon}::xid8`))
    .orderBy(asc(auditLog.writtenIn), asc(auditLog.createdAt), asc(auditLog.id))
    .limit(limit);
  const last = rows.at(-1);
  if (last && rows.length === limit) return { rows, next: { writtenIn: last.writtenIn, entry: last } };
  const isBeyond = BigInt(writtenIn) > BigInt(horizon);
  return { rows, next: isBeyond ? after : { writtenIn: horizon, entry: undefined } };
}

/** Number of the oldest transaction that goes on; everything before it has ended. */
export async function writtenHorizon(db: Db): Promise<string> {
  const { rows } = await db.execute<{ horizon: string }>(
    sql`SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS horizon`,
  );
  const [row] = rows;
  if (!row) throw new Error('SELECT gave no row');
  return row.horizon;
}

function matches(view: AuditView, filter: AuditFilter): SQL | undefined {
  const { resourceTypes = [], actions = [], actorId, status, resourceId, from, to } = filter;
  return and(
    isSeen(view),
    resourceTypes.length > 0 ? inArray(auditLog.resourceType, [...resourceTypes]) : undefined,
    actions.length > 0 ? inArray(auditLog.action, [...actions]) : undefined,
    actorId === undefined ? undefined : eq(auditLog.actorId, actorId),
    status === undefined ? undefined : eq(auditLog.status, status),
    resourceId === undefined ? undefined : eq(auditLog.resourceId, resourceId),
    from ? gte(auditLog.createdAt, from) : undefined,
    to ? lt(auditLog.createdAt, to) : undefined,
  );
}

function isSeen(view: AuditView): SQL | undefined {
  const isOfTeam = eq(auditLog.teamId, view.teamId);
  if (view.of === 'platform') return or(eq(auditLog.scope, 'platform'), isNull(auditLog.teamId), isOfTeam);
  return and(isOfTeam, inArray(auditLog.scope, [...view.scopes]));
}

function isBefore({ createdAt, id }: TimePosition): SQL {
  if (id === undefined) return lt(auditLog.createdAt, createdAt);
  return sql`(${auditLog.createdAt}, ${auditLog.id}) < (${instant(createdAt)}, ${id})`;
}

function instant(date: Date): SQL {
  return sql`${date.toISOString()}::timestamptz`;
}
