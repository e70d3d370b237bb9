import { setTimeout as delay, setImmediate } from 'node:timers/promises';
import type { DiskStop } from '../hypervisor.ts';
import type { QmpDiskError } from './qmp-protocol.ts';

const RETRY_MS = 1000;

/**
 * Lets a VM go on that stands still because the host could not carry out a request to its disk: QEMU keeps the request
 * and tries it again whenever the VM is told to run.
 */
export class DiskStopWatch {
  readonly #retry: () => Promise<void>;
  readonly #listeners = new Set<(stop: DiskStop | undefined) => void>();
  #stop: DiskStop | undefined;
  #failedAgain = false;
  #waiting: AbortController | undefined;

  /** @param retry Lets the VM run. */
  constructor(retry: () => Promise<void>) {
    this.#retry = retry;
  }

  /** Calls `listener` at every change, and at once where the VM stands still. @returns a function that ends this. */
  subscribe(listener: (stop: DiskStop | undefined) => void): () => void {
    this.#listeners.add(listener);
    if (this.#stop) listener(this.#stop);
    return () => this.#listeners.delete(listener);
  }

  /** QEMU said that a request failed. */
  failed({ action, nospace, operation, reason }: QmpDiskError): void {
    if (action !== 'stop') return;
    this.#failedAgain = true;
    this.#change({ operation, hostDiskFull: nospace, reason });
    if (!this.#waiting) void this.#goOnWhenPossible();
  }

  /** Somebody else decides from now on whether the VM runs. The next failure begins anew. */
  end(): void {
    this.#waiting?.abort();
    this.#waiting = undefined;
    this.#change(undefined);
  }

  async #goOnWhenPossible(): Promise<void> {
    const waiting = new AbortController();
    this.#waiting = waiting;
    while (await pause(waiting.signal)) {
      // An event that came while this program stood still is heard first.
      await setImmediate();
      if (waiting.signal.aborted) return;
      if (!this.#failedAgain) return this.end();
      this.#failedAgain = false;
      // A connection that is lost ends the watch from outside, and a QEMU that is slow to answer is asked again.
      await this.#retry().catch(() => {
        this.#failedAgain = true;
      });
    }
  }

  #change(stop: DiskStop | undefined): void {
    const isNews = (stop === undefined) !== (this.#stop === undefined);
    this.#stop = stop;
    if (isNews) for (const listener of this.#listeners) listener(stop);
  }
}

/** @returns whether the time passed, and not the signal ended it. */
async function pause(signal: AbortSignal): Promise<boolean> {
  return delay(RETRY_MS, true, { signal, ref: false }).catch(() => false);
}
