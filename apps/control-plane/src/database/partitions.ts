import { setTimeout as delay } from 'node:timers/promises';
import { sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from './database.ts';
import { nameOf, nextPeriod, type Period, periodOf, startOfName } from './partition-periods.ts';

/** Well within the shortest period. */
const INTERVAL_MS = 600_000;
/** After a failure, such as a lock that others held for too long. */
const RETRY_MS = 60_000;
/** A partition is added or dropped only when nobody has to wait for long behind that. */
const LOCK_TIMEOUT_MS = 2000;
/** Advisory lock of whoever tends the partitions. Any constant; it only must not be used for something else. */
const LOCK = 7_366_510_420_916;

/** A table that is partitioned by time. Rows without a partition of their own go to `{table}_default`. */
export interface PartitionedTable {
  readonly table: string;
  /** The column of time. */
  readonly column: string;
  readonly period: Period;
  /** Partitions that are made before their time comes. */
  readonly ahead: number;
  /** A partition is dropped once its last possible row is older. */
  readonly retentionMs: number;
  /** Done in the transaction before rows are moved or dropped, where that needs leave. */
  readonly prepare?: (tx: Db) => Promise<void>;
}

/** What was done to partitions, by their names. */
export interface PartitionChanges {
  readonly made: readonly string[];
  readonly dropped: readonly string[];
}

/**
 * Makes the partitions of now, of the next periods and of every period whose rows lie in the default partition, and
 * drops those whose last row is older than the retention. Of several at once one does the work.
 */
export async function tendPartitions(db: Db, table: PartitionedTable, now: Date): Promise<PartitionChanges> {
  const { period } = table;
  const oldest = now.getTime() - table.retentionMs;
  const made: string[] = [];
  const dropped: string[] = [];
  const there = new Set(await listPartitions(db, table));
  const ahead = [periodOf(period, now)];
  while (ahead.length <= table.ahead) ahead.push(nextPeriod(period, ahead.at(-1) ?? now));
  for (const start of [...ahead, ...(await strayPeriods(db, table))]) {
    const name = nameOf(table.table, period, start);
    if (!there.has(name) && (await makePartition(db, table, start))) made.push(name);
    there.add(name);
  }
  for (const name of there) {
    const start = startOfName(table.table, period, name);
    if (!start || nextPeriod(period, start).getTime() > oldest) continue;
    if (await dropPartition(db, table, name)) dropped.push(name);
  }
  return { made, dropped };
}

/** Tends the partitions of the tables now and again and again, until the signal ends this. */
export async function keepPartitions(
  db: Db,
  tables: readonly PartitionedTable[],
  signal: AbortSignal,
  log: Logger,
): Promise<void> {
  while (!signal.aborted) {
    let waitMs = INTERVAL_MS;
    for (const table of tables) {
      if (signal.aborted) return;
      try {
        const { made, dropped } = await tendPartitions(db, table, new Date());
        if (made.length > 0 || dropped.length > 0) log.info({ made, dropped }, 'changed partitions');
      } catch (err) {
        // Until the next time the default partition takes what has no other.
        log.warn({ err, table: table.table }, 'could not tend the partitions of a table');
        waitMs = RETRY_MS;
      }
    }
    await delay(waitMs, undefined, { signal }).catch(() => undefined);
  }
}

async function listPartitions(db: Db, { table, period }: PartitionedTable): Promise<string[]> {
  const { rows } = await db.execute<{ name: string }>(
    sql`SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = ${table}::regclass`,
  );
  return rows.map(({ name }) => name).filter((name) => startOfName(table, period, name) !== undefined);
}

async function strayPeriods(db: Db, { table, column, period }: PartitionedTable): Promise<Date[]> {
  const { rows } = await db.execute<{ ms: number }>(
    sql`SELECT DISTINCT extract(epoch FROM date_trunc(${period}, ${sql.identifier(column)}, 'UTC'))::float8 * 1000 AS ms
      FROM ${sql.identifier(`${table}_default`)}`,
  );
  return rows.map(({ ms }) => new Date(ms));
}

/** @returns false when another control plane is at it */
async function makePartition(db: Db, partitioned: PartitionedTable, start: Date): Promise<boolean> {
  const { period } = partitioned;
  const plain = nameOf(partitioned.table, period, start);
  const [name, table, column] = [plain, partitioned.table, partitioned.column].map((part) => sql.identifier(part));
  const fallback = sql.identifier(`${partitioned.table}_default`);
  const from = start.toISOString();
  const to = nextPeriod(period, start).toISOString();
  return inMaintenance(db, partitioned, async (tx) => {
    const { rows } = await tx.execute(sql`SELECT to_regclass(${plain}) AS found`);
    if (rows[0]?.found) return false;
    // Not the default partition alone: a writer that has chosen it already would be refused once it may go on.
    await tx.execute(sql`LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`);
    await tx.execute(sql`CREATE TABLE ${name} (LIKE ${table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)`);
    await tx.execute(sql`WITH moved AS (
      DELETE FROM ${fallback} WHERE ${column} >= ${from} AND ${column} < ${to} RETURNING *
    ) INSERT INTO ${name} SELECT * FROM moved`);
    await tx.execute(
      sql`ALTER TABLE ${table} ATTACH PARTITION ${name}
        FOR VALUES FROM (${sql.raw(`'${from}'`)}) TO (${sql.raw(`'${to}'`)})`,
    );
    return true;
  });
}

async function dropPartition(db: Db, table: PartitionedTable, name: string): Promise<boolean> {
  return inMaintenance(db, table, async (tx) => {
    await tx.execute(sql`DROP TABLE IF EXISTS ${sql.identifier(name)}`);
    return true;
  });
}

/** One at a time on all control planes. */
async function inMaintenance(
  db: Db,
  { prepare }: PartitionedTable,
  work: (tx: Db) => Promise<boolean>,
): Promise<boolean> {
  return db.transaction(async (tx) => {
    const { rows } = await tx.execute<{ ours: boolean }>(sql`SELECT pg_try_advisory_xact_lock(${LOCK}) AS ours`);
    if (!rows[0]?.ours) return false;
    await tx.execute(sql.raw(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`));
    await prepare?.(tx);
    return work(tx);
  });
}
