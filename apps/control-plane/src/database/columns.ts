import { customType, timestamp } from 'drizzle-orm/pg-core';

export const instant = (name: string) => timestamp(name, { withTimezone: true, mode: 'date' });

/** Whole milliseconds, so that a Date holds all of it and a cursor can name a row exactly. */
export const instantMs = (name: string) => timestamp(name, { withTimezone: true, mode: 'date', precision: 3 });

export const bytes = customType<{ data: Buffer }>({ dataType: () => 'bytea' });

/** Number of a transaction, 64 bits in decimal digits. */
export const transactionId = customType<{ data: string }>({ dataType: () => 'xid8' });
