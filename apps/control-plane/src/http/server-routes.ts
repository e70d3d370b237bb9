import { healthSchema, type Ready, readySchema } from '@wrenn/protocol/rest/server';
import type { Database } from '../database/database.ts';
import type { Host } from '../hosts/host.ts';
import { PROGRAM_VERSION } from '../version.ts';
import type { Server } from './server.ts';

const CHECK_TIMEOUT_MS = 3000;

/** What tells whoever watches this program how it is. Open to everybody. */
export function serverRoutes(app: Server, database: Database, hosts: () => readonly Host[]): void {
  app.get(
    '/health',
    {
      schema: {
        operationId: 'health',
        tags: ['server'],
        summary: 'Whether the server runs',
        security: [],
        response: { 200: healthSchema },
      },
    },
    async () => ({ status: 'ok' as const, version: PROGRAM_VERSION }),
  );

  app.get(
    '/ready',
    {
      schema: {
        operationId: 'ready',
        tags: ['server'],
        summary: 'Whether requests can be served: the database answers and a host is online',
        security: [],
        response: { 200: readySchema, 503: readySchema },
      },
    },
    async (_request, reply) => {
      const checks = { database: await checkDatabase(database), host: checkHosts(hosts()) };
      const ready = checks.database.ok && checks.host.ok;
      reply.code(ready ? 200 : 503);
      return { ready, checks };
    },
  );
}

async function checkDatabase(database: Database): Promise<Ready['checks']['database']> {
  try {
    await database.check(AbortSignal.timeout(CHECK_TIMEOUT_MS));
    return { ok: true, detail: 'answers' };
  } catch {
    return { ok: false, detail: 'does not answer' };
  }
}

function checkHosts(hosts: readonly Host[]): Ready['checks']['host'] {
  const online = hosts.filter((host) => host.online);
  if (online.length > 0) return { ok: true, detail: `${online.length} online` };
  return { ok: false, detail: `no host answers at ${hosts.map(({ address }) => address).join(', ')}` };
}
