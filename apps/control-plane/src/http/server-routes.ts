import { healthSchema, type Ready, readySchema } from '@wrenn/protocol/rest/server';
import { sql } from 'drizzle-orm';
import type { Database } from '../database/database.ts';
import { SCHEMA_VERSION } from '../database/migrate.ts';
import type { Host } from '../hosts/host.ts';
import { PROGRAM_VERSION } from '../version.ts';
import type { Server } from './server.ts';

type Check = Ready['checks']['database'];

const CHECK_TIMEOUT_MS = 3000;
const UNKNOWN: Check = { ok: false, detail: 'cannot be read' };

export interface ServerRouteDeps {
  readonly database: Database;
  readonly hosts: () => readonly Host[];
  /** The platform is of one machine: without its host nothing can be served. */
  readonly needsHost: boolean;
  /** Undefined: it is not used. */
  readonly checkRedis: () => Check | undefined;
}

/** What tells whoever watches this program how it is. Open to everybody. */
export function serverRoutes(app: Server, { database, hosts, needsHost, checkRedis }: ServerRouteDeps): void {
  let isClosing = false;
  app.addHook('preClose', async () => {
    isClosing = true;
  });

  app.get(
    '/health',
    {
      config: { permission: 'public' },
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
      config: { permission: 'public' },
      schema: {
        operationId: 'ready',
        tags: ['server'],
        summary: 'Whether requests can be served, and what is missing where they cannot',
        security: [],
        response: { 200: readySchema, 503: readySchema },
      },
    },
    async (_request, reply) => {
      const server = isClosing ? { ok: false, detail: 'shutting down' } : { ok: true, detail: 'takes requests' };
      const databaseCheck = await checkDatabase(database);
      const migrations = databaseCheck.ok ? await checkMigrations(database) : UNKNOWN;
      const host = checkHosts(hosts());
      const ready = server.ok && databaseCheck.ok && migrations.ok && (host.ok || !needsHost);
      const redis = checkRedis();
      const checks = { server, database: databaseCheck, migrations, host, ...(redis ? { redis } : {}) };
      reply.code(ready ? 200 : 503);
      return { ready, checks };
    },
  );
}

async function checkDatabase(database: Database): Promise<Check> {
  try {
    await database.check(AbortSignal.timeout(CHECK_TIMEOUT_MS));
    return { ok: true, detail: 'answers' };
  } catch {
    return { ok: false, detail: 'does not answer' };
  }
}

async function checkMigrations({ db }: Database): Promise<Check> {
  try {
    const { rows } = await db.execute<{ version: number | null }>(
      sql`SELECT max(version) AS version FROM schema_migrations`,
    );
    const version = rows[0]?.version ?? 0;
    // A newer one is of a control plane that is being rolled out.
    return { ok: version >= SCHEMA_VERSION, detail: `version ${version} of ${SCHEMA_VERSION}` };
  } catch {
    return UNKNOWN;
  }
}

function checkHosts(hosts: readonly Host[]): Check {
  const online = hosts.filter((host) => host.online);
  if (online.length > 0) return { ok: true, detail: `${online.length} online` };
  if (hosts.length === 0) return { ok: false, detail: 'no host has joined' };
  return { ok: false, detail: `no host answers at ${hosts.map(({ address }) => address).join(', ')}` };
}
