import { bigint, integer, pgTable, primaryKey, real, text } from 'drizzle-orm/pg-core';
import { instant } from './columns.ts';

const bytes = (name: string) => bigint(name, { mode: 'number' });

export const teamSamples = pgTable(
  'team_samples',
  {
    teamId: text('team_id').notNull(),
    sampledAt: instant('sampled_at').notNull(),
    runningCount: integer('running_count').notNull(),
    vcpusReserved: integer('vcpus_reserved').notNull(),
    memoryMbReserved: bytes('memory_mb_reserved').notNull(),
  },
  (table) => [primaryKey({ columns: [table.teamId, table.sampledAt] })],
);

/** How fine the points are and how long they are kept. */
export const METRIC_TIERS = ['10m', '2h', '24h'] as const;

export const capsulePoints = pgTable(
  'capsule_points',
  {
    capsuleId: text('capsule_id').notNull(),
    tier: text({ enum: METRIC_TIERS }).notNull(),
    at: instant('at').notNull(),
    cpuPct: real('cpu_pct').notNull(),
    memoryBytes: bytes('memory_bytes').notNull(),
    diskBytes: bytes('disk_bytes').notNull(),
    /** Within the point. */
    netRxBytes: bytes('net_rx_bytes').notNull(),
    netTxBytes: bytes('net_tx_bytes').notNull(),
    /** Of how many measurements CPU, memory and disk are the mean. */
    samples: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.capsuleId, table.tier, table.at] })],
);

/** The last measurement of each capsule that is in the points: later ones are new, and count from these. */
export const capsuleCounters = pgTable('capsule_counters', {
  capsuleId: text('capsule_id').primaryKey(),
  /** When the VM started whose network this counts: another one counts from zero. By the clock of its host. */
  countedFrom: instant('counted_from').notNull(),
  sampledAt: instant('sampled_at').notNull(),
  netRxBytes: bytes('net_rx_bytes').notNull(),
  netTxBytes: bytes('net_tx_bytes').notNull(),
});
