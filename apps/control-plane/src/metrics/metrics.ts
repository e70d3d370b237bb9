import { CAPSULE_STATUSES, type CapsuleStatus, type CapsuleTrace } from '@wrenn/protocol/rest/capsule';
import { count, ne } from 'drizzle-orm';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Db } from '../database/database.ts';
import { capsules, type OperationKind } from '../database/schema.ts';
import type { Host } from '../hosts/host.ts';
import { PROGRAM_VERSION } from '../version.ts';
import { fleetGauges } from './fleet-gauges.ts';
import { processRegistry } from './process-metrics.ts';

/** Seconds. A start takes tens of milliseconds with KVM and a pool, minutes where a shape boots cold and emulated. */
const DURATION_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60, 300];
const STEP_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10, 60];
/** Names of steps come from the hosts: a label may take only so many values, and no id. */
const MAX_STEP_NAMES = 64;
const STEP_NAME = /^[a-z][a-z _-]{0,39}$/;

/** What the control plane counts, in the text format of Prometheus. No label names a capsule, a team or a host. */
export interface Metrics {
  /** Counts a start that succeeded, by its steps. */
  recordTrace(trace: CapsuleTrace): void;
  /** Counts the end of an operation. `outcome`: `ok` or a code of the error catalogue. */
  recordOperation(kind: OperationKind, outcome: string, durationMs: number): void;
  /** Counts an error that a request was answered with, by its code in the error catalogue. */
  recordError(code: string): void;
  /** Counts a search for a host, as `recordOperation` does. */
  recordPlacement(outcome: string, durationMs: number): void;
  /** Counts a heartbeat that was taken down, or why it could not be. */
  recordHeartbeat(outcome: string, durationMs: number): void;
  /** Everything as it is now. @throws WrennError `database_unavailable` by way of the database's own error */
  render(): Promise<{ readonly contentType: string; readonly text: string }>;
}

export function createMetrics(db: Db, hosts: () => readonly Host[]): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const operations = new Counter({
    name: 'wrenn_operations_total',
    help: 'Operations on capsules that ended, by kind and outcome: ok, or a code of the error catalogue.',
    labelNames: ['kind', 'outcome'],
    registers,
  });
  const operationSeconds = new Histogram({
    name: 'wrenn_operation_duration_seconds',
    help: 'Time that operations which succeeded were worked on.',
    labelNames: ['kind'],
    buckets: DURATION_BUCKETS,
    registers,
  });
  const startSeconds = new Histogram({
    name: 'wrenn_capsule_start_duration_seconds',
    help: 'From the request to the first answer of the guest, for starts that succeeded: create, resume, fork.',
    labelNames: ['kind'],
    buckets: DURATION_BUCKETS,
    registers,
  });
  const stepSeconds = new Histogram({
    name: 'wrenn_capsule_start_step_duration_seconds',
    help: 'Steps of those starts. Steps may overlap, and one of the control plane may hold others of the host.',
    labelNames: ['kind', 'where', 'step'],
    buckets: STEP_BUCKETS,
    registers,
  });
  const capsulesByStatus = new Gauge({
    name: 'wrenn_capsules',
    help: 'Capsules that exist, by status. The same at every control plane of one database.',
    labelNames: ['status'],
    registers,
  });
  const hostsKnown = new Gauge({ name: 'wrenn_hosts', help: 'Hosts that this control plane is to use.', registers });
  const hostsOnline = new Gauge({
    name: 'wrenn_hosts_online',
    help: 'Hosts whose events reach this control plane right now.',
    registers,
  });
  const errors = new Counter({
    name: 'wrenn_api_errors_total',
    help: 'Requests that were answered with an error, by its code in the error catalogue.',
    labelNames: ['code'],
    registers,
  });
  const placements = new Counter({
    name: 'wrenn_placements_total',
    help: 'Searches for a host for a capsule, by outcome: ok, or a code of the error catalogue.',
    labelNames: ['outcome'],
    registers,
  });
  const placementSeconds = new Histogram({
    name: 'wrenn_placement_duration_seconds',
    help: 'Time that those searches took, also without success.',
    buckets: STEP_BUCKETS,
    registers,
  });
  const heartbeats = new Counter({
    name: 'wrenn_heartbeats_total',
    help: 'Heartbeats of hosts whose credentials were right, by outcome: ok, or a code of the error catalogue.',
    labelNames: ['outcome'],
    registers,
  });
  const heartbeatSeconds = new Histogram({
    name: 'wrenn_heartbeat_duration_seconds',
    help: 'Time to take a heartbeat down: the comparison of its capsules and its measurements too.',
    buckets: STEP_BUCKETS,
    registers,
  });
  const fleet = fleetGauges(db, registry);
  new Gauge({
    name: 'wrenn_build_info',
    help: '1, with the version of the control plane.',
    labelNames: ['version'],
    registers,
  }).set({ version: PROGRAM_VERSION }, 1);

  const stepNames = new Set<string>();
  const toStepLabel = (name: string): string => {
    if (!stepNames.has(name) && (stepNames.size >= MAX_STEP_NAMES || !STEP_NAME.test(name))) return 'other';
    stepNames.add(name);
    return name;
  };

  return {
    recordTrace: ({ kind, duration_ms, steps }) => {
      startSeconds.observe({ kind }, duration_ms / 1000);
      for (const { name, where, duration_ms: stepMs } of steps) {
        stepSeconds.observe({ kind, where, step: toStepLabel(name) }, stepMs / 1000);
      }
    },
    recordOperation: (operation, outcome, durationMs) => {
      const kind = operation.replace('capsule.', '');
      operations.inc({ kind, outcome });
      if (outcome === 'ok') operationSeconds.observe({ kind }, durationMs / 1000);
    },
    recordError: (code) => errors.inc({ code }),
    recordPlacement: (outcome, durationMs) => {
      placements.inc({ outcome });
      placementSeconds.observe(durationMs / 1000);
    },
    recordHeartbeat: (outcome, durationMs) => {
      heartbeats.inc({ outcome });
      if (outcome === 'ok') heartbeatSeconds.observe(durationMs / 1000);
    },
    render: async () => {
      const [counts] = await Promise.all([countCapsules(db), fleet.update()]);
      for (const status of CAPSULE_STATUSES) {
        if (status !== 'stopped') capsulesByStatus.set({ status }, counts.get(status) ?? 0);
      }
      hostsKnown.set(hosts().length);
      hostsOnline.set(hosts().filter(({ online }) => online).length);
      const all = Registry.merge([registry, processRegistry()]);
      return { contentType: all.contentType, text: await all.metrics() };
    },
  };
}

/** Capsules by status without those that have ended, which only grow. */
async function countCapsules(db: Db): Promise<Map<CapsuleStatus, number>> {
  const rows = await db
    .select({ status: capsules.status, capsules: count() })
    .from(capsules)
    .where(ne(capsules.status, 'stopped'))
    .groupBy(capsules.status);
  return new Map(rows.map((row) => [row.status, row.capsules]));
}
