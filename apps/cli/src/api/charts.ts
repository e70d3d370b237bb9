import {
  capsuleMetricsSchema,
  type METRICS_RANGES,
  type STATS_RANGES,
  teamStatsSchema,
} from '@wrenn/protocol/rest/team-metrics';
import type { z } from 'zod';
import { type ApiHttp, capsulePath, query } from './http.ts';

export type TeamStats = z.output<typeof teamStatsSchema>;
export type StatsRange = (typeof STATS_RANGES)[number];
export type CapsuleMetrics = z.output<typeof capsuleMetricsSchema>;
export type MetricsRange = (typeof METRICS_RANGES)[number];

/** The part of the API that charts are drawn from. */
export interface ChartCalls {
  readStats(range: StatsRange, signal: AbortSignal): Promise<TeamStats>;
  /** Of a capsule in any state. */
  readMetrics(id: string, range: MetricsRange, signal: AbortSignal): Promise<CapsuleMetrics>;
}

export function chartCalls({ json }: ApiHttp): ChartCalls {
  return {
    readStats: (range, signal) => json(teamStatsSchema, `/v1/capsules/stats${query({ range })}`, {}, signal),
    readMetrics: (id, range, signal) =>
      json(capsuleMetricsSchema, capsulePath(id, `/metrics${query({ range })}`), {}, signal),
  };
}
