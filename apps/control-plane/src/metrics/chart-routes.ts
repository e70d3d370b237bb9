import { capsuleParamsSchema } from '@wrenn/protocol/rest/capsule';
import {
  capsuleMetricsQuerySchema,
  capsuleMetricsSchema,
  teamStatsQuerySchema,
  teamStatsSchema,
} from '@wrenn/protocol/rest/team-metrics';
import { hostById, requireCapsule } from '../capsules/capsules.ts';
import { clientGone } from '../http/client-gone.ts';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { readCapsuleMetrics } from './capsule-metrics.ts';
import { readTeamStats } from './team-stats.ts';

/** What charts of teams and of capsules are drawn from. */
export function chartRoutes(app: Server, { db, capsules }: RouteDeps): void {
  app.get(
    '/capsules/stats',
    {
      config: { permission: 'capsule.read' },
      schema: {
        operationId: 'getCapsuleStats',
        tags: ['capsules'],
        summary: 'What the capsules of the team hold and held: how many run, vCPUs, memory',
        description:
          'Sampled every 10 seconds. A capsule that sleeps on its host counts with half of its memory, rounded up.',
        querystring: teamStatsQuerySchema,
        response: { 200: teamStatsSchema, ...errorResponses },
      },
    },
    async ({ caller, query }) => readTeamStats(db, caller.teamId, query.range, new Date()),
  );

  app.get(
    '/capsules/:id/metrics',
    {
      config: { permission: 'capsule.read' },
      schema: {
        operationId: 'getCapsuleMetrics',
        tags: ['capsules'],
        summary: 'CPU, memory, disk and network of a capsule over time',
        description:
          'Up to 10 minutes a point is 10 seconds, up to 2 hours 30 seconds, up to 24 hours 5 minutes. They stay when the ' +
          'capsule sleeps, moves or is destroyed.',
        params: capsuleParamsSchema,
        querystring: capsuleMetricsQuerySchema,
        response: { 200: capsuleMetricsSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { caller, params, query } = request;
      const capsule = await requireCapsule(db, caller.teamId, params.id);
      const host = hostById(capsules, capsule.hostId);
      return readCapsuleMetrics(db, capsule, host, query.range, {
        now: new Date(),
        signal: clientGone(request, reply),
      });
    },
  );
}
