import { Readable } from 'node:stream';
import { auditExportQuerySchema, auditPageSchema, auditQuerySchema } from '@wrenn/protocol/rest/audit';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { isAllowed } from '../access/authorize.ts';
import { errorResponses, type RouteDeps, sendStream } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import { CSV_HEAD, toCsvLine } from './audit-body.ts';
import { exportAudit, readAuditPage } from './audit-log.ts';
import type { AuditView } from './audit-store.ts';

const exported = z.string().meta({ description: 'One entry in each line, oldest first.' });

/** Characters that are gathered before they are sent. */
const CHUNK_LENGTH = 64 * 1024;

export function auditLogRoutes(app: Server, { db }: RouteDeps): void {
  for (const { path, prefix, permission, viewOf } of VIEWS) {
    app.get(
      path,
      {
        config: { permission },
        schema: {
          operationId: `list${prefix}AuditLogs`,
          tags: ['audit'],
          summary: prefix ? 'What was done to the platform' : 'What was done in the team, and by whom',
          description:
            'Newest first; follow `next_cursor`. With `after` in the order in which entries were written, for whoever copies ' +
            'the log: it misses none, however long a transaction took.',
          querystring: auditQuerySchema,
          response: { 200: auditPageSchema, ...errorResponses },
        },
      },
      async (request) => readAuditPage(db, viewOf(request), request.query),
    );

    app.get(
      `${path}/export`,
      {
        config: {
          permission,
          audit: { resource: 'audit_log', action: 'export', details: ({ query }) => ({ ...(query as object) }) },
        },
        schema: {
          operationId: `export${prefix}AuditLogs`,
          tags: ['audit'],
          summary: 'Every entry of a time as NDJSON or CSV',
          produces: ['application/x-ndjson', 'text/csv'],
          querystring: auditExportQuerySchema,
          response: { 200: exported, ...errorResponses },
        },
      },
      async (request, reply) => {
        const { format, ...query } = request.query;
        return sendLines(reply, format, exportAudit(db, viewOf(request), query));
      },
    );
  }
}

const VIEWS = [
  {
    path: '/audit-logs',
    prefix: '',
    permission: 'audit.read',
    viewOf: ({ principal, caller }: FastifyRequest): AuditView => ({
      of: 'team',
      teamId: caller.teamId,
      scopes: isAllowed(principal, 'audit.read_admin') ? ['team', 'admin'] : ['team'],
    }),
  },
  {
    path: '/admin/audit-logs',
    prefix: 'Admin',
    permission: 'platform',
    viewOf: (): AuditView => ({ of: 'platform', teamId: PLATFORM_TEAM_ID }),
  },
] as const;

function sendLines(
  reply: FastifyReply,
  format: 'ndjson' | 'csv',
  entries: ReturnType<typeof exportAudit>,
): FastifyReply {
  const isCsv = format === 'csv';
  reply
    .type(isCsv ? 'text/csv; charset=utf-8' : 'application/x-ndjson')
    .header('content-disposition', `attachment; filename="audit-log.${format}"`);
  async function* chunks(): AsyncGenerator<string> {
    let chunk = isCsv ? CSV_HEAD : '';
    for await (const entry of entries) {
      chunk += isCsv ? toCsvLine(entry) : `${JSON.stringify(entry)}\n`;
      if (chunk.length < CHUNK_LENGTH) continue;
      yield chunk;
      chunk = '';
    }
    if (chunk) yield chunk;
  }
  return sendStream(reply, Readable.from(chunks(), { objectMode: false }));
}
