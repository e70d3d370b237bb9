import { z } from 'zod';

export const STATS_RANGES = ['5m', '1h', '6h', '24h', '30d'] as const;

const reserved = z.object({ running_count: z.int(), vcpus_reserved: z.int(), memory_mb_reserved: z.int() });

/** `GET /v1/capsules/stats`. */
export const teamStatsQuerySchema = z.object({ range: z.enum(STATS_RANGES).default('1h') });
export const teamStatsSchema = z
  .object({
    range: z.enum(STATS_RANGES),
    current: reserved,
    peaks: reserved.meta({ description: 'Of the last 30 days.' }),
    series: z
      .object({
        labels: z.array(z.string()),
        running: z.array(z.int()),
        vcpus: z.array(z.int()),
        memory_mb: z.array(z.int()),
      })
      .meta({ description: 'One value a bucket: the highest of it.' }),
  })
  .meta({ id: 'TeamStats' });

export const METRICS_RANGES = ['5m', '10m', '1h', '2h', '6h', '12h', '24h'] as const;

/** `GET /v1/capsules/{id}/metrics`. */
export const capsuleMetricsQuerySchema = z.object({ range: z.enum(METRICS_RANGES).default('10m') });
export const capsuleMetricsSchema = z
  .object({
    sandbox_id: z.string(),
    range: z.enum(METRICS_RANGES),
    points: z.array(
      z.object({
        timestamp_unix: z.int(),
        cpu_pct: z.number(),
        mem_bytes: z.int(),
        disk_bytes: z.int(),
        net_rx_bytes: z.int().meta({ description: 'Received by the guest within this point.' }),
        net_tx_bytes: z.int().meta({ description: 'Sent by the guest within this point.' }),
      }),
    ),
  })
  .meta({ id: 'CapsuleMetrics' });
