import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { VmRecord } from '../journal/vm-record.ts';
import { slotOf } from '../network/slot.ts';
import { ownDiskBytes } from './disk-use.ts';
import { type InterfaceUse, readInterfaces } from './read-network.ts';
import { readProcessUse } from './read-process.ts';
import { SampleRing, type TakenSamples, type VmSample } from './sample-ring.ts';

/** The finest point of a chart is 10 s: with two measurements in each, one that comes late leaves no hole. */
const PERIOD_MS = 5000;
/** As long as a control plane may be away without a hole in the charts. */
const KEPT_MS = 900_000;
/** As many as one heartbeat may hold. */
const MAX_SAMPLES = 100_000;
/** Disks change slowly, and asking for their size may have to wait for them. */
const DISK_EVERY = 6;
/** After so many VMs others get their turn; reading one takes some 50 µs. */
const SLICE = 32;

/** A VM as it can be measured: it has a process and a slot. */
export type MeasuredVm = Pick<VmRecord, 'id' | 'shape' | 'layers' | 'sharedLayers' | 'startedAt' | 'process' | 'slot'>;

export interface VmSamplerOptions {
  /** VMs that run now, with the folders that hold their disks. */
  readonly running: () => readonly { readonly record: MeasuredVm; readonly dir: string }[];
  readonly log: Logger;
  readonly now?: () => Date;
  readonly interfaces?: () => ReadonlyMap<string, InterfaceUse>;
}

/** What was seen of a VM's process, from which the next measurement counts. */
interface Look {
  readonly startedAt: string | undefined;
  readonly atMs: number;
  readonly cpuSeconds: number;
  readonly cpuPct: number;
  readonly memoryBytes: number;
  readonly diskBytes: number;
}

/** Measures the VMs of this host, and keeps the measurements until they are old, told or not. */
export class VmSampler {
  readonly #options: VmSamplerOptions;
  readonly #ring = new SampleRing({ maxAgeMs: KEPT_MS, maxSamples: MAX_SAMPLES });
  readonly #last = new Map<string, Look>();
  #looks = 0;
  #lastMs = 0;

  constructor(options: VmSamplerOptions) {
    this.#options = options;
  }

  /** For heartbeats: all that no answered one has told. */
  takeSamples(): TakenSamples {
    return this.#ring.take();
  }

  /** See SampleRing.read. */
  readSamples(id: string | undefined, since: Date | undefined): VmSample[] {
    return this.#ring.read(id, since);
  }

  /** How many measurements are kept, and how long the last look at all VMs took. */
  stats(): { readonly kept: number; readonly lastMs: number } {
    return { kept: this.#ring.size, lastMs: this.#lastMs };
  }

  /** Measures every 5 seconds until the signal ends this. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.look().catch((err: unknown) => this.#options.log.warn({ err }, 'VMs could not be measured'));
      await delay(PERIOD_MS, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  /** Measures every VM once. The first time only tells what the next one counts from. */
  async look(): Promise<void> {
    const began = performance.now();
    const vms = this.#options.running();
    const interfaces = this.#interfaces();
    const samples: VmSample[] = [];
    const at = this.#now();
    this.#looks += 1;
    for (const [index, { record, dir }] of vms.entries()) {
      if (index % SLICE === SLICE - 1) await new Promise(setImmediate);
      const known = this.#lastOf(record);
      const diskIsDue = !known || (this.#looks + index) % DISK_EVERY === 0;
      const diskBytes = diskIsDue ? await ownDiskBytes(dir, record) : known.diskBytes;
      const look = lookAt(record, known, diskBytes);
      if (!look) continue;
      this.#last.set(record.id, look);
      const sample = known && toSample(record, at, look, interfaces);
      if (sample) samples.push(sample);
    }
    this.#ring.add(samples, at);
    this.#lastMs = performance.now() - began;
    const there = new Set(vms.map(({ record }) => record.id));
    for (const id of this.#last.keys()) if (!there.has(id)) this.#last.delete(id);
  }

  /** Measures a VM that is about to end, so that nothing of what it sent is lost. Its process may have ended already. */
  lastLook(record: MeasuredVm): void {
    const at = this.#now();
    try {
      const known = this.#lastOf(record);
      const look = lookAt(record, known, known?.diskBytes ?? 0) ?? known;
      const sample = look && toSample(record, at, look, this.#interfaces());
      if (sample) this.#ring.add([sample], at);
    } catch (err) {
      // A VM has to end whether it can be measured or not.
      this.#options.log.warn({ err, vm: record.id }, 'a VM could not be measured at its end');
    }
    this.#last.delete(record.id);
  }

  /** What is known of the same start of this VM. */
  #lastOf({ id, startedAt }: MeasuredVm): Look | undefined {
    const last = this.#last.get(id);
    return last?.startedAt === startedAt ? last : undefined;
  }

  #now(): Date {
    return this.#options.now?.() ?? new Date();
  }

  #interfaces(): ReadonlyMap<string, InterfaceUse> {
    return this.#options.interfaces?.() ?? readInterfaces();
  }
}

/** @returns undefined where its process has ended */
function lookAt(
  { process, startedAt, shape }: MeasuredVm,
  last: Look | undefined,
  diskBytes: number,
): Look | undefined {
  const use = process && readProcessUse(process.pid, process.startTicks);
  if (!use) return undefined;
  const atMs = performance.now();
  const seconds = last ? (atMs - last.atMs) / 1000 : 0;
  // The kernel counts in hundredths of a second: of less than a second they say little.
  if (last && seconds < 1) return { ...last, memoryBytes: use.memoryBytes };
  // A hypervisor's own threads come on top of the guest's.
  const cpuPct = last ? Math.min(((use.cpuSeconds - last.cpuSeconds) / seconds / shape.vcpus) * 100, 100) : 0;
  return { startedAt, atMs, diskBytes, cpuPct: Math.round(cpuPct * 100) / 100, ...use };
}

function toSample(
  { id, slot, startedAt }: MeasuredVm,
  at: Date,
  { cpuPct, memoryBytes, diskBytes }: Look,
  interfaces: ReadonlyMap<string, InterfaceUse>,
): VmSample | undefined {
  const network = slot === undefined ? undefined : interfaces.get(slotOf(slot).veth);
  if (!network || startedAt === undefined) return undefined;
  return {
    ...{ id, at, countedFrom: new Date(startedAt), cpuPct, memoryBytes, diskBytes },
    // What the host's end receives the guest has sent.
    netRxBytes: network.sentBytes,
    netTxBytes: network.receivedBytes,
  };
}
