import { WrennError } from '@wrenn/protocol/errors';
import type { AuditPageBody, AuditQuery } from '@wrenn/protocol/rest/audit';
import type { Db } from '../database/database.ts';
import { toAuditBody } from './audit-body.ts';
import { readTimeCursor, readWrittenCursor, type TimePosition, timeCursor, writtenCursor } from './audit-cursor.ts';
import {
  type AuditFilter,
  type AuditView,
  listBefore,
  listFrom,
  listWrittenAfter,
  writtenHorizon,
} from './audit-store.ts';

/** Entries that an export reads at a time. */
const EXPORT_BATCH = 1000;

type FilterQuery = Pick<AuditQuery, 'resource_type' | 'action' | 'actor' | 'status' | 'resource_id' | 'from' | 'to'>;

/**
 * One page of the log: newest first, or with `after` in the order in which entries were written.
 *
 * @throws WrennError `invalid_request`
 */
export async function readAuditPage(db: Db, view: AuditView, query: AuditQuery): Promise<AuditPageBody> {
  const { after, cursor, before, limit } = query;
  if (after !== undefined) {
    if (cursor !== undefined || before !== undefined) {
      throw new WrennError('invalid_request', { problem: 'after cannot be together with cursor or before' });
    }
    return follow(db, view, query, after);
  }
  // One more tells whether there is another page.
  const rows = await listBefore(db, view, toFilter(query), positionOf(query), limit + 1);
  const last = rows.length > limit ? rows[limit - 1] : undefined;
  return {
    items: rows.slice(0, limit).map(toAuditBody),
    next_before: last?.createdAt.toISOString() ?? null,
    next_before_id: last?.id ?? null,
    next_cursor: last ? timeCursor(last) : null,
    next_after: null,
  };
}

function positionOf({ cursor, before, before_id }: AuditQuery): TimePosition | undefined {
  if (cursor !== undefined) return readTimeCursor(cursor);
  return before === undefined ? undefined : { createdAt: new Date(before), id: before_id };
}

async function follow(db: Db, view: AuditView, query: AuditQuery, after: string): Promise<AuditPageBody> {
  const nothing = { items: [], next_before: null, next_before_id: null, next_cursor: null };
  if (after === 'now') {
    return { ...nothing, next_after: writtenCursor({ writtenIn: await writtenHorizon(db), entry: undefined }) };
  }
  const place = after === 'start' ? { writtenIn: '0', entry: undefined } : readWrittenCursor(after);
  const { rows, next } = await listWrittenAfter(db, view, toFilter(query), place, query.limit);
  return { ...nothing, items: rows.map(toAuditBody), next_after: writtenCursor(next) };
}

/** All entries that the filter takes, oldest first, as they are at the instant of this call. */
export async function* exportAudit(
  db: Db,
  view: AuditView,
  query: FilterQuery,
): AsyncGenerator<ReturnType<typeof toAuditBody>> {
  // What is written while this runs would have no end.
  const now = new Date();
  const { to = now, ...filter } = toFilter(query);
  let after: { createdAt: Date; id: string } | undefined;
  for (;;) {
    const rows = await listFrom(db, view, { ...filter, to: to < now ? to : now }, after, EXPORT_BATCH);
    for (const row of rows) yield toAuditBody(row);
    after = rows.at(-1);
    if (rows.length < EXPORT_BATCH) return;
  }
}

function toFilter(query: FilterQuery): AuditFilter {
  return {
    resourceTypes: toList(query.resource_type),
    actions: toList(query.action),
    actorId: query.actor,
    status: query.status,
    resourceId: query.resource_id,
    from: query.from === undefined ? undefined : new Date(query.from),
    to: query.to === undefined ? undefined : new Date(query.to),
  };
}

function toList(value: string | readonly string[] | undefined): string[] {
  return [value ?? []]
    .flat()
    .flatMap((text) => text.split(','))
    .map((text) => text.trim())
    .filter(Boolean);
}
