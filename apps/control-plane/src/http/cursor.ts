import { WrennError } from '@wrenn/protocol/errors';
import { type Column, type SQL, sql } from 'drizzle-orm';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';

/** A row of a list that is sorted by when its rows were made, and then by their ids. */
export interface Position {
  /** As `positionAt` writes it: a Date would lose its microseconds, and with them rows of the same millisecond. */
  readonly at: string;
  readonly id: string;
}

const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;

const positionSchema = z.tuple([z.string().regex(INSTANT), z.string().min(1).max(100)]);

/** Column of a query that tells where a row stands. */
export function positionAt(createdAt: Column): SQL<string> {
  return sql<string>`to_char(${createdAt} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}

/**
 * Rows that come after a cursor, newest first; without one, all. An index on both columns answers it.
 *
 * @throws WrennError `invalid_request` for what is no cursor
 */
export function comesAfter(createdAt: Column, id: Column, cursor: string | undefined): SQL | undefined {
  if (cursor === undefined) return undefined;
  return sql`(${createdAt}, ${id}) < ${rowAt(decodeCursor(cursor))}`;
}

/** The same of a list whose oldest rows come first. */
export function comesLater(createdAt: Column, id: Column, cursor: string | undefined): SQL | undefined {
  if (cursor === undefined) return undefined;
  return sql`(${createdAt}, ${id}) > ${rowAt(decodeCursor(cursor))}`;
}

function rowAt({ at, id }: Position): SQL {
  return sql`(${at}::timestamptz, ${id})`;
}

/** What clients get of a position. It holds nothing secret, and what they change in it leads only to another page. */
export function encodeCursor({ at, id }: Position): string {
  return Buffer.from(JSON.stringify([at, id])).toString('base64url');
}

/** @throws WrennError `invalid_request` for what is no cursor */
export function decodeCursor(cursor: string): Position {
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(cursor, 'base64url').toString());
  } catch (cause) {
    throw new WrennError('invalid_request', { problem: 'the cursor is not one that a list gave' }, { cause });
  }
  const { success, data } = positionSchema.safeParse(json);
  // The form does not say that there is such a day.
  if (!success || Number.isNaN(Date.parse(data[0])))
    throw new WrennError('invalid_request', { problem: 'the cursor is not one that a list gave' });
  return { at: data[0], id: data[1] };
}

/** A page of a list whose answer is a bare array: that there is more is told by headers. */
export interface Page<Row> {
  readonly rows: readonly Row[];
  /** The last row, where there is another page. */
  readonly next: Position | undefined;
}

/**
 * Makes a page of one row more than it may have.
 *
 * @param rows in order, at most `limit + 1`
 */
export function pageOf<Row>(rows: readonly Row[], limit: number, positionOf: (row: Row) => Position): Page<Row> {
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return { rows: page, next: last && rows.length > limit ? positionOf(last) : undefined };
}

/** The rows of a page, whose next one is told in `X-Next-Cursor` and `Link`. */
export function answerPage<Row>(request: FastifyRequest, reply: FastifyReply, { rows, next }: Page<Row>): Row[] {
  if (!next) return [...rows];
  const cursor = encodeCursor(next);
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  searchParams.set('cursor', cursor);
  reply.header('x-next-cursor', cursor).header('link', `<${pathname}?${searchParams}>; rel="next"`);
  return [...rows];
}
