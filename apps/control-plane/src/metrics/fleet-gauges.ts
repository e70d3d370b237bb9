import { HOST_STATUSES } from '@wrenn/protocol/rest/hosts';
import { sql } from 'drizzle-orm';
import { Gauge, type Registry } from 'prom-client';
import type { Db } from '../database/database.ts';

const MIB = 1024 * 1024;
const RESOURCES = ['vcpus', 'memory_bytes'] as const;

/** Hosts by status, what they have, and what is reserved of them and of the pools that teams bought. */
export function fleetGauges(db: Db, registry: Registry): { readonly update: () => Promise<void> } {
  const registers = [registry];
  const hostsByStatus = new Gauge({
    name: 'wrenn_hosts_by_status',
    help: 'Hosts that are registered or to be, by status.',
    labelNames: ['status'],
    registers,
  });
  const capacity = new Gauge({
    name: 'wrenn_hosts_capacity',
    help: 'What hosts that are online and not cordoned have, in vCPUs of their machines and bytes of memory.',
    labelNames: ['resource'],
    registers,
  });
  const reserved = new Gauge({
    name: 'wrenn_hosts_reserved',
    help: 'What capsules that run hold of all hosts, in vCPUs and bytes of memory.',
    labelNames: ['resource'],
    registers,
  });
  const poolLimit = new Gauge({
    name: 'wrenn_pools_limit',
    help: 'Sum of the pools of teams, in vCPUs and bytes of memory.',
    labelNames: ['resource'],
    registers,
  });
  const poolUsed = new Gauge({
    name: 'wrenn_pools_used',
    help: 'What teams with a pool use of it, in vCPUs and bytes of memory; one that sleeps counts half its memory.',
    labelNames: ['resource'],
    registers,
  });
  return {
    update: async () => {
      const [statuses, sums] = await Promise.all([countHosts(db), sumUp(db)]);
      for (const status of HOST_STATUSES) {
        if (status !== 'deleted') hostsByStatus.set({ status }, statuses.get(status) ?? 0);
      }
      for (const resource of RESOURCES) {
        const factor = resource === 'vcpus' ? 1 : MIB;
        const column = resource === 'vcpus' ? 'vcpus' : 'memory_mb';
        const gauges = { capacity, reserved, limit: poolLimit, used: poolUsed };
        for (const [name, gauge] of Object.entries(gauges)) {
          gauge.set({ resource }, Number(sums[`${name}_${column}`] ?? 0) * factor);
        }
      }
    },
  };
}

async function countHosts(db: Db): Promise<Map<string, number>> {
  const { rows } = await db.execute<{ status: string; hosts: string }>(
    sql`SELECT status, count(*) AS hosts FROM hosts WHERE deleted_at IS NULL GROUP BY status`,
  );
  return new Map(rows.map(({ status, hosts }) => [status, Number(hosts)]));
}

async function sumUp(db: Db): Promise<Record<string, string | null>> {
  const { rows } = await db.execute<Record<string, string | null>>(sql`
    SELECT h.*, l.*, p.* FROM
      (SELECT sum(cpu_count) AS capacity_vcpus, sum(memory_mb) AS capacity_memory_mb FROM hosts
        WHERE deleted_at IS NULL AND status = 'online' AND cordoned_at IS NULL) h,
      (SELECT sum(vcpus) AS reserved_vcpus, sum(memory_mb) AS reserved_memory_mb FROM host_load) l,
      (SELECT sum(p.vcpus) AS limit_vcpus, sum(p.memory_mb) AS limit_memory_mb,
        sum(t.vcpus) FILTER (WHERE p.vcpus IS NOT NULL) AS used_vcpus,
        sum(t.memory_mb + t.asleep_half_memory_mb) FILTER (WHERE p.memory_mb IS NOT NULL) AS used_memory_mb
        FROM pools p JOIN team_load t USING (team_id)) p`);
  return rows[0] ?? {};
}
