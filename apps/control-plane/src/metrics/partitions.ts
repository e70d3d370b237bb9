import type { PartitionedTable } from '../database/partitions.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

const points = (tier: string, period: PartitionedTable['period'], ahead: number, retentionMs: number) => ({
  ...{ table: `capsule_points_${tier}`, column: 'at', period, ahead, retentionMs },
});

/** Charts of teams are kept for 60 days; points of capsules for longer than the longest range that is read of them. */
export const METRIC_PARTITIONS: readonly PartitionedTable[] = [
  { table: 'team_samples', column: 'sampled_at', period: 'week', ahead: 2, retentionMs: 60 * DAY_MS },
  points('10m', 'hour', 3, HOUR_MS),
  points('2h', 'hour', 3, 3 * HOUR_MS),
  points('24h', 'day', 2, 2 * DAY_MS),
];
