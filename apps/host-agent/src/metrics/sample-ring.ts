/** One measurement of a VM, by the clock of this host. */
export interface VmSample {
  readonly id: string;
  readonly at: Date;
  /** When the VM started; the counters of its network begin with it. */
  readonly countedFrom: Date;
  /** Of all its vCPUs together since the measurement before, 0 to 100. */
  readonly cpuPct: number;
  readonly memoryBytes: number;
  readonly diskBytes: number;
  readonly netRxBytes: number;
  readonly netTxBytes: number;
}

/** Measurements that somebody is to be told. */
export interface TakenSamples {
  /** In the order of time. */
  readonly samples: readonly VmSample[];
  /** They have arrived: the next ones begin after them. Without this they are taken again. */
  acknowledge(): void;
}

/** The last measurements of all VMs: of so many minutes, and at most so many. */
export class SampleRing {
  readonly #maxAgeMs: number;
  readonly #maxSamples: number;
  #samples: VmSample[] = [];
  /** How many have been dropped at the beginning, which numbers the rest. */
  #dropped = 0;
  #acknowledged = 0;

  constructor({ maxAgeMs, maxSamples }: { readonly maxAgeMs: number; readonly maxSamples: number }) {
    this.#maxAgeMs = maxAgeMs;
    this.#maxSamples = maxSamples;
  }

  get size(): number {
    return this.#samples.length;
  }

  add(samples: readonly VmSample[], now: Date): void {
    this.#samples.push(...samples);
    const oldest = now.getTime() - this.#maxAgeMs;
    const fresh = this.#samples.findIndex(({ at }) => at.getTime() >= oldest);
    const tooOld = fresh < 0 ? this.#samples.length : fresh;
    const surplus = Math.max(tooOld, this.#samples.length - this.#maxSamples);
    if (surplus === 0) return;
    this.#samples = this.#samples.slice(surplus);
    this.#dropped += surplus;
  }

  /** What nobody has acknowledged yet. */
  take(): TakenSamples {
    const samples = this.#samples.slice(Math.max(this.#acknowledged - this.#dropped, 0));
    const end = this.#dropped + this.#samples.length;
    return {
      samples,
      acknowledge: () => {
        this.#acknowledged = Math.max(this.#acknowledged, end);
      },
    };
  }

  /**
   * @param id of one VM; undefined: of all
   * @param since Only what was measured later; undefined: all that there is.
   */
  read(id: string | undefined, since: Date | undefined): VmSample[] {
    const after = since?.getTime() ?? Number.NEGATIVE_INFINITY;
    return this.#samples.filter((sample) => (id === undefined || sample.id === id) && sample.at.getTime() > after);
  }
}
