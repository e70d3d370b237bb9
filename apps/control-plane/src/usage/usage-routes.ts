import { teamParamsSchema } from '@wrenn/protocol/rest/teams';
import {
  adminUsageQuerySchema,
  adminUsageSchema,
  type UsageQuery,
  usageExportQuerySchema,
  usageQuerySchema,
  usageSchema,
} from '@wrenn/protocol/rest/usage';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { readUsage, readUsageOfAll } from './usage.ts';
import { adminUsageToCsv, usageToCsv } from './usage-csv.ts';

const csvText = z.string().meta({ description: 'One line a point, the first line their names.' });
const description =
  'Exact, also of today until now. Days are UTC, at most 92 of them, by default the last 30. `format=csv` answers the same ' +
  'as CSV.';

export function usageRoutes(app: Server, deps: RouteDeps): void {
  const answer = async (teamId: string, query: UsageQuery, reply: FastifyReply) => {
    const usage = await readUsage(deps, teamId, query);
    return query.format === 'csv' ? sendCsv(reply, usageToCsv(usage, query.group_by), usage) : usage;
  };

  app.get(
    '/capsules/usage',
    {
      config: { permission: 'usage.read' },
      schema: {
        operationId: 'getUsage',
        tags: ['usage'],
        summary: 'What the capsules of the team used',
        description,
        querystring: usageQuerySchema,
        response: { 200: usageSchema, ...errorResponses },
      },
    },
    (request, reply) => answer(request.caller.teamId, request.query, reply),
  );

  app.get(
    '/capsules/usage/export',
    {
      config: { permission: 'usage.read' },
      schema: {
        operationId: 'exportUsage',
        tags: ['usage'],
        summary: 'What the capsules of the team used, as CSV',
        querystring: usageExportQuerySchema,
        produces: ['text/csv'],
        response: { 200: csvText, ...errorResponses },
      },
    },
    async (request, reply) => {
      const usage = await readUsage(deps, request.caller.teamId, request.query);
      return sendCsv(reply, usageToCsv(usage, request.query.group_by), usage);
    },
  );

  app.get(
    '/teams/:id/usage',
    {
      config: { permission: 'usage.read', teamParam: 'id' },
      schema: {
        operationId: 'getTeamUsage',
        tags: ['usage'],
        summary: 'What the capsules of a team used',
        description,
        params: teamParamsSchema,
        querystring: usageQuerySchema,
        response: { 200: usageSchema, ...errorResponses },
      },
    },
    (request, reply) => answer(request.params.id, request.query, reply),
  );

  app.get(
    '/admin/usage',
    {
      config: { permission: 'platform' },
      schema: {
        operationId: 'adminGetUsage',
        tags: ['admin'],
        summary: 'What each team used',
        description,
        querystring: adminUsageQuerySchema,
        response: { 200: adminUsageSchema, ...errorResponses },
      },
    },
    async ({ query }, reply) => {
      const usage = await readUsageOfAll(deps, query);
      return query.format === 'csv' ? sendCsv(reply, adminUsageToCsv(usage), usage) : usage;
    },
  );
}

/** Sends text where the schema of the route describes the same as an object. */
function sendCsv(reply: FastifyReply, csv: string, { from, to }: { from: string; to: string }): FastifyReply {
  return reply
    .type('text/csv; charset=utf-8')
    .header('content-disposition', `attachment; filename="usage-${from}-${to}.csv"`)
    .serializer((text: string) => text)
    .send(csv);
}
