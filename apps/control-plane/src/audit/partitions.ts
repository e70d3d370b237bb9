import { sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import type { PartitionedTable } from '../database/partitions.ts';

const DAY_MS = 24 * 3_600_000;

/** A partition a month, kept until its last entry is older than the retention. */
export function auditPartitions(retentionDays: number): PartitionedTable {
  return {
    ...{ table: 'audit_log', column: 'created_at', period: 'month', ahead: 2 },
    retentionMs: retentionDays * DAY_MS,
    prepare: allowAuditChanges,
  };
}

/** Until the end of this transaction. For partitions and purged accounts only: nothing else changes entries. */
export async function allowAuditChanges(tx: Db): Promise<void> {
  await tx.execute(sql`SET LOCAL wrenn.audit_maintenance = 'on'`);
}
