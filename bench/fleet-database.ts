import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Database, openDatabase } from '@wrenn/control-plane/database/database';
import { newId } from '@wrenn/protocol/ids';
import { pino } from 'pino';

/** Of each simulated host: every fifth sleeps. */
export const CAPSULES_OF_A_HOST = 100;
const TEAMS = 50;
/** Capsules are inserted by so many hosts at once. */
const HOSTS_OF_A_STATEMENT = 50;

/** What the triggers on capsules would have counted. */
const COUNT_LOADS = [
  `UPDATE host_load l SET running = s.n, vcpus = s.n, memory_mb = s.n * 512, disk_mb = s.n * 1024,
     asleep = s.asleep, asleep_memory_mb = s.asleep * 512, asleep_disk_mb = s.asleep * 1024
   FROM (
     SELECT host_id, count(*) FILTER (WHERE status <> 'paused') AS n, count(*) FILTER (WHERE status = 'paused') AS asleep
     FROM capsules WHERE status IN ('running', 'paused') GROUP BY 1
   ) s WHERE s.host_id = l.host_id`,
  `UPDATE team_load l SET running = s.n, vcpus = s.n, memory_mb = s.n * 512, asleep = s.asleep,
     asleep_half_memory_mb = s.asleep * 256, disk_mb = (s.n + s.asleep) * 1024
   FROM (
     SELECT team_id, count(*) FILTER (WHERE status <> 'paused') AS n, count(*) FILTER (WHERE status = 'paused') AS asleep
     FROM capsules WHERE status IN ('running', 'paused') GROUP BY 1
   ) s WHERE s.team_id = l.team_id`,
];

/** The database of a platform with simulated hosts: real rows, and no agent behind them. */
export interface FleetDatabase extends AsyncDisposable {
  readonly database: Database;
  readonly teamIds: readonly string[];
  readonly hostIds: readonly string[];
  /** Adds hosts with their capsules until there are so many. */
  growTo(hosts: number): Promise<void>;
  /** Ends what was created since, so that all hosts are equal again. */
  endNewOnes(): Promise<void>;
}

/** A PostgreSQL of its own, as the control plane starts it, with durable commits. */
export async function openFleetDatabase(): Promise<FleetDatabase> {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-fleet-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  // The server runs under another user.
  await chmod(dir, 0o711);
  const database = stack.use(await openDatabase({ url: undefined, dir, log: pino({ level: 'warn' }) }));
  const teamIds = Array.from({ length: TEAMS }, () => newId('team'));
  await database.pool.query(`INSERT INTO teams (id, name, slug) SELECT id, id, id FROM unnest($1::text[]) AS id`, [
    teamIds,
  ]);
  const hostIds: string[] = [];
  const running = stack.move();
  return {
    ...{ database, teamIds, hostIds },
    growTo: async (hosts) => {
      const added = Array.from({ length: hosts - hostIds.length }, () => newId('host'));
      await addHosts(database, teamIds, added);
      hostIds.push(...added);
    },
    endNewOnes: async () => {
      await database.pool.query(`UPDATE capsules SET status = 'stopped' WHERE status = 'pending'`);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

async function addHosts({ connectClient }: Database, teamIds: readonly string[], ids: readonly string[]) {
  // Outside the pool, whose statements have less time.
  const client = await connectClient();
  try {
    await client.query(
      `INSERT INTO hosts (id, address, status, arch, cpu_count, memory_mb, disk_mb, disk_free_mb, hypervisor,
         hypervisor_version, accelerator, templates, cpu, object_store, last_heartbeat_at)
       SELECT id, id || ':50051', 'online', 'x86_64', 192, 262144, 8000000, 6000000, 'firecracker', '1.13', 'kvm',
         '{minimal,python,node}', 'x', 'store', now()
       FROM unnest($1::text[]) AS id`,
      [ids],
    );
    // Counted once for all of them below: counting one after the other is what takes the time.
    await client.query(`SET session_replication_role = replica`);
    for (let at = 0; at < ids.length; at += HOSTS_OF_A_STATEMENT) {
      await client.query(
        `INSERT INTO capsules (id, team_id, host_id, template, status, vcpus, memory_mb, disk_request_mb, timeout_sec,
           envs, labels, versions, access_token, generation)
         SELECT 'cl-' || substr(md5(host_id || i), 1, 25), ($2::text[])[1 + (i * 7 + hashtext(host_id) & 255) % $3], host_id, 'minimal',
           CASE WHEN i % 5 = 0 THEN 'paused' ELSE 'running' END, 1, 512, 0, 0, '{}', '{"job": "bench"}', '{}', 'none',
           CASE WHEN i % 5 = 0 THEN 1 ELSE 0 END
         FROM unnest($1::text[]) AS host_id, generate_series(1, $4::int) AS i`,
        [ids.slice(at, at + HOSTS_OF_A_STATEMENT), teamIds, teamIds.length, CAPSULES_OF_A_HOST],
      );
    }
    for (const statement of COUNT_LOADS) await client.query(statement);
    await client.query('VACUUM ANALYZE');
  } finally {
    await client.end();
  }
}
