import { WrennError } from '@wrenn/protocol/errors';
import { z } from 'zod';

/** An entry, as the order by time knows it. */
export interface TimePosition {
  readonly createdAt: Date;
  /** Undefined: before every entry of that instant. */
  readonly id: string | undefined;
}

/** A place in the order in which entries were written. */
export interface WrittenPosition {
  /** Number of the transaction, in decimal digits. */
  readonly writtenIn: string;
  /** The entry of that transaction; undefined: before all of its. */
  readonly entry: { readonly createdAt: Date; readonly id: string } | undefined;
}

const id = z.string().regex(/^log-[0-9a-z]{25}$/);
const epochMs = z.int().min(0).max(253_402_300_799_999);
const timeSchema = z.tuple([z.literal('t'), epochMs, id]);
const writtenSchema = z.union([
  z.tuple([z.literal('w'), z.string().regex(/^\d{1,19}$/)]),
  z.tuple([z.literal('w'), z.string().regex(/^\d{1,19}$/), epochMs, id]),
]);

export function timeCursor({ createdAt, id }: { createdAt: Date; id: string }): string {
  return encode(['t', createdAt.getTime(), id]);
}

/** @throws WrennError `invalid_request` */
export function readTimeCursor(text: string): TimePosition {
  const [, createdMs, id] = decode(timeSchema, text);
  return { createdAt: new Date(createdMs), id };
}

export function writtenCursor({ writtenIn, entry }: WrittenPosition): string {
  return encode(['w', writtenIn, ...(entry ? [entry.createdAt.getTime(), entry.id] : [])]);
}

/** @throws WrennError `invalid_request` */
export function readWrittenCursor(text: string): WrittenPosition {
  const [, writtenIn, createdMs, id] = decode(writtenSchema, text);
  const entry = createdMs === undefined || id === undefined ? undefined : { createdAt: new Date(createdMs), id };
  return { writtenIn, entry };
}

function encode(parts: readonly unknown[]): string {
  return Buffer.from(JSON.stringify(parts)).toString('base64url');
}

function decode<Schema extends z.ZodType>(schema: Schema, text: string): z.output<Schema> {
  try {
    return schema.parse(JSON.parse(Buffer.from(text, 'base64url').toString()));
  } catch (cause) {
    throw new WrennError('invalid_request', { problem: 'the cursor is none of this list' }, { cause });
  }
}
