import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import type { Heartbeat } from '@wrenn/protocol/rest/hosts';
import type { Logger } from 'pino';
import type { TakenSamples, VmSample } from '../metrics/sample-ring.ts';
import { type BackOff, backOffMs } from './back-off.ts';
import { type ControlPlaneClient, type HeartbeatReply, isTransient } from './control-plane-client.ts';
import type { HeartbeatFacts } from './host-facts.ts';
import type { Renewal } from './renewal.ts';
import { StateLog } from './state-log.ts';

/** Beyond this, certificates and tokens begin and end at other times than both sides think. */
const MAX_CLOCK_OFFSET_MS = 30_000;
/** Hosts that were started together need not come together. */
const JITTER = 0.1;

export interface HeartbeatTiming {
  /** From one to the next. */
  readonly intervalMs: number;
  /** After failures that may end by themselves. */
  readonly backOff: BackOff;
  /** Where somebody has to do something first. */
  readonly rareMs: number;
}

const TIMING: HeartbeatTiming = {
  intervalMs: 30_000,
  backOff: { firstMs: 1000, lastMs: 30_000 },
  rareMs: 300_000,
};

export interface HeartbeatOptions {
  readonly client: ControlPlaneClient;
  readonly renewal: Renewal;
  readonly facts: () => Promise<HeartbeatFacts>;
  /** Measurements that the control plane does not have yet; acknowledged when it answered. */
  readonly takeSamples: () => TakenSamples;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly timing?: HeartbeatTiming;
}

type Outcome = 'answered' | 'failed' | 'refused';

/**
 * Tells the control plane, for as long as the agent runs, that this host lives and what is on it. Whatever is answered:
 * no VM ends for it, and it is asked again.
 */
export class Heartbeats {
  /** Another for each process, so that a second agent with the same credentials shows. */
  readonly bootId = randomUUID();
  readonly #options: HeartbeatOptions;
  readonly #timing: HeartbeatTiming;
  readonly #connection: StateLog;
  readonly #clock: StateLog;
  #sequence = 0;
  #failures = 0;
  #controlPlanes: readonly string[] = [];

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    this.#timing = options.timing ?? TIMING;
    this.#connection = new StateLog(options.log);
    this.#clock = new StateLog(options.log);
  }

  /** Ids of all control planes, as the last answer said. */
  get controlPlanes(): readonly string[] {
    return this.#controlPlanes;
  }

  /** Ends with the signal. */
  async run(): Promise<void> {
    const { signal, renewal } = this.#options;
    while (!signal.aborted) {
      const startedMs = performance.now();
      const outcome = await this.#beat();
      if (outcome === 'answered' && renewal.isDue && !signal.aborted) await renewal.attempt();
      const waitMs = this.#waitMs(outcome) - (performance.now() - startedMs);
      await delay(Math.max(waitMs, 0), undefined, { signal }).catch(() => undefined);
    }
  }

  #waitMs(outcome: Outcome): number {
    const { intervalMs, rareMs, backOff } = this.#timing;
    if (outcome === 'failed') return backOffMs(backOff, this.#failures);
    return (outcome === 'answered' ? intervalMs : rareMs) * (1 - JITTER * Math.random());
  }

  async #beat(): Promise<Outcome> {
    const { renewal, signal } = this.#options;
    let error = await this.#send();
    if (isUnauthorized(error) && (await renewal.attempt())) error = await this.#send();
    if (signal.aborted) return 'failed';
    if (error === undefined) {
      this.#failures = 0;
      this.#connection.isWell({ hostId: renewal.current.host_id }, 'the control plane takes heartbeats again');
      return 'answered';
    }
    this.#failures += 1;
    return this.#judge(error);
  }

  /** @returns why it failed */
  async #send(): Promise<unknown> {
    const { client, renewal, facts, takeSamples, signal } = this.#options;
    try {
      const { host_id: hostId, token } = renewal.current;
      const batch = takeSamples();
      const body = {
        ...(await facts()),
        ...{ samples: batch.samples.map(sampleBody), boot_id: this.bootId, sequence: ++this.#sequence },
        sent_at: new Date().toISOString(),
      };
      const reply = await client.heartbeat(hostId, token, body, signal);
      batch.acknowledge();
      this.#take(reply);
      return undefined;
    } catch (error) {
      return error ?? new Error('a heartbeat failed without a reason');
    }
  }

  #take(reply: HeartbeatReply): void {
    if (reply.renew) this.#options.renewal.ask();
    if (reply.control_planes.length > 0) this.#controlPlanes = reply.control_planes;
    const offsetMs = reply.clock_offset_ms ?? 0;
    if (Math.abs(offsetMs) <= MAX_CLOCK_OFFSET_MS) {
      this.#clock.isWell({ offsetMs }, 'the clock of this machine is right again');
    } else {
      const fields = { offsetMs, remedy: 'Set it, best by NTP: certificates and tokens begin and end by it.' };
      this.#clock.is('off', 'warn', fields, 'the clock of this machine is not that of its control plane');
    }
  }

  #judge(err: unknown): Outcome {
    const { renewal, client } = this.#options;
    const hostId = renewal.current.host_id;
    if (!(err instanceof WrennError) || isTransient(err)) {
      this.#connection.is('away', 'warn', { err, url: client.baseUrl }, 'a heartbeat did not reach the control plane');
      return 'failed';
    }
    const fields = { hostId, problem: err.message, remedy: err.remedy };
    if (isUnauthorized(err) && !renewal.isRefused) {
      this.#connection.is(err.code, 'warn', fields, 'this host has no credentials that are good at the moment');
      return 'failed';
    }
    if (err.code === 'host_deleted') {
      this.#connection.is(err.code, 'error', fields, 'this host was deleted; its VMs go on running');
    } else {
      this.#connection.is(err.code, 'error', fields, 'the control plane refuses the heartbeats of this host');
    }
    return 'refused';
  }
}

function isUnauthorized(error: unknown): boolean {
  return error instanceof WrennError && error.http === 401;
}

function sampleBody(sample: VmSample): Heartbeat['samples'][number] {
  return {
    id: sample.id,
    at: sample.at.toISOString(),
    counted_from: sample.countedFrom.toISOString(),
    cpu_pct: sample.cpuPct,
    memory_bytes: sample.memoryBytes,
    disk_bytes: sample.diskBytes,
    net_rx_bytes: sample.netRxBytes,
    net_tx_bytes: sample.netTxBytes,
  };
}
