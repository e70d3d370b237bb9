import { statfs } from 'node:fs/promises';
import { Code, ConnectError, type Interceptor } from '@connectrpc/connect';
import { WrennError } from '@wrenn/protocol/errors';
import { HOST_VM_STATES } from '@wrenn/protocol/rest/hosts';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { SlotPool } from '../network/slot-pool.ts';
import type { WarmPoolStats } from '../pool/warm-pool.ts';
import { AGENT_VERSION } from '../version.ts';
import { hostCapacity } from '../vms/check-spec.ts';
import type { VmView } from '../vms/vm-view.ts';
import type { VmSampler } from './vm-sampler.ts';

/** Seconds. A warm start takes tens of milliseconds; a large memory that is saved, minutes. */
const VERB_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800];
const MIB = 1024 * 1024;

export interface AgentMetricsOptions {
  /** WRENN_DIR. */
  readonly root: string;
  readonly vms: () => readonly VmView[];
  readonly pool: { stats(): WarmPoolStats };
  readonly slots: Pick<SlotPool, 'readyCount'>;
  readonly sampler: Pick<VmSampler, 'stats'>;
}

/** What a host agent counts. No label names a VM. */
export interface AgentMetrics {
  /** Counts the verbs of the agent's server by their ends, and measures those that succeed. */
  readonly interceptor: Interceptor;
  render(): Promise<{ readonly contentType: string; readonly text: string }>;
}

export function createAgentMetrics(options: AgentMetricsOptions): AgentMetrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const verbs = new Counter({
    name: 'wrenn_agent_verbs_total',
    help: 'Verbs of the control plane that ended, by outcome: ok, or a code of the error catalogue.',
    labelNames: ['verb', 'outcome'],
    registers,
  });
  const verbSeconds = new Histogram({
    name: 'wrenn_agent_verb_duration_seconds',
    help: 'Time that verbs which succeeded took.',
    labelNames: ['verb'],
    buckets: VERB_BUCKETS,
    registers,
  });
  const gauges = gaugesOf(registers);
  gauges.buildInfo.set({ version: AGENT_VERSION }, 1);
  return {
    interceptor: (next) => async (request) => {
      if (request.stream) return next(request);
      const verb = request.method.name;
      const started = performance.now();
      try {
        const answer = await next(request);
        verbSeconds.observe({ verb }, (performance.now() - started) / 1000);
        verbs.inc({ verb, outcome: 'ok' });
        return answer;
      } catch (error) {
        verbs.inc({ verb, outcome: outcomeOf(error) });
        throw error;
      }
    },
    render: async () => {
      await update(gauges, options);
      return { contentType: registry.contentType, text: await registry.metrics() };
    },
  };
}

type Gauges = ReturnType<typeof gaugesOf>;

function gaugesOf(registers: Registry[]) {
  const gauge = (name: string, help: string, ...labelNames: string[]) =>
    new Gauge({ name: `wrenn_agent_${name}`, help, labelNames, registers });
  return {
    vms: gauge('vms', 'VMs of capsules that this host has, by state.', 'state'),
    pool: gauge('warm_pool_vms', 'VMs without a tenant: waiting, and wanted if there were memory for all.', 'what'),
    poolMemory: gauge('warm_pool_memory_bytes', 'Memory that VMs without a tenant may take together.'),
    poolTakes: gauge('warm_pool_takes', 'Creates since the start that found a VM waiting, or did not.', 'result'),
    poolLost: gauge('warm_pool_lost', 'VMs since the start that ended while they waited.'),
    slots: gauge('network_slots', 'Network slots: used by VMs, and ready for the next ones.', 'state'),
    snapshotBytes: gauge('snapshot_bytes', 'Bytes on disk that the last snapshots of VMs that sleep alone hold.'),
    memory: gauge('memory_bytes', 'Memory of this machine: all that VMs may have, and what is free.', 'what'),
    disk: gauge('disk_bytes', 'File system of WRENN_DIR: its size, and what is free.', 'what'),
    samples: gauge('samples', 'Measurements of VMs that are kept.'),
    sampleSeconds: gauge('sample_duration_seconds', 'Time that the last measurement of all VMs took.'),
    buildInfo: gauge('build_info', '1, with the version of the agent.', 'version'),
  };
}

async function update(gauges: Gauges, { root, vms, pool, slots, sampler }: AgentMetricsOptions): Promise<void> {
  const views = vms();
  const states = views.map(stateOf);
  for (const state of HOST_VM_STATES) gauges.vms.set({ state }, states.filter((each) => each === state).length);
  gauges.snapshotBytes.set(views.reduce((sum, { sleeping }) => sum + (sleeping?.ownBytes ?? 0), 0));
  const { waiting, wanted, memoryMb, taken, missed, lost } = pool.stats();
  gauges.pool.set({ what: 'waiting' }, waiting);
  gauges.pool.set({ what: 'wanted' }, wanted);
  gauges.poolMemory.set(memoryMb * MIB);
  gauges.poolTakes.set({ result: 'found' }, taken);
  gauges.poolTakes.set({ result: 'missed' }, missed);
  gauges.poolLost.set(lost);
  gauges.slots.set({ state: 'ready' }, slots.readyCount);
  gauges.slots.set({ state: 'used' }, waiting + views.filter(({ record }) => record?.slot !== undefined).length);
  const capacity = hostCapacity();
  gauges.memory.set({ what: 'total' }, capacity.memoryMb * MIB);
  gauges.memory.set({ what: 'free' }, capacity.availableMemoryMb * MIB);
  const { blocks, bavail, bsize } = await statfs(root);
  gauges.disk.set({ what: 'total' }, blocks * bsize);
  gauges.disk.set({ what: 'free' }, bavail * bsize);
  const { kept, lastMs } = sampler.stats();
  gauges.samples.set(kept);
  gauges.sampleSeconds.set(lastMs / 1000);
}

function stateOf({ record }: VmView): (typeof HOST_VM_STATES)[number] {
  if (!record) return 'paused';
  switch (record.phase) {
    case 'pooled':
    case 'creating':
      return 'starting';
    case 'destroying':
      return 'stopping';
    default:
      return record.phase;
  }
}

function outcomeOf(error: unknown): string {
  if (error instanceof WrennError) return error.code;
  if (error instanceof SuppressedError) return outcomeOf(error.suppressed);
  return error instanceof ConnectError && error.code === Code.Canceled ? 'cancelled' : 'internal_error';
}
