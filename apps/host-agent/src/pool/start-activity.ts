import { rejectOnAbort } from '../processes/reject-on-abort.ts';

/** After a start its caller sends a first command, which background work should not slow either. */
const QUIET_AFTER_MS = 150;

/** Knows whether VMs are being started, so that work ahead of need does not take the CPU from starts that somebody waits for. */
export class StartActivity {
  #running = 0;
  #lastEndMs = Number.NEGATIVE_INFINITY;
  #ended = Promise.withResolvers<void>();

  /** Counts one start until it is disposed of. */
  begin(): Disposable {
    this.#running += 1;
    let over = false;
    return {
      [Symbol.dispose]: () => {
        if (over) return;
        over = true;
        this.#running -= 1;
        this.#lastEndMs = performance.now();
        if (this.#running > 0) return;
        this.#ended.resolve();
        this.#ended = Promise.withResolvers();
      },
    };
  }

  /** Resolves at a moment when no VM has been started for 150 ms. */
  async quiet(signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const leftMs = this.#lastEndMs + QUIET_AFTER_MS - performance.now();
      if (this.#running > 0) await rejectOnAbort(this.#ended.promise, signal);
      else if (leftMs > 0) await rejectOnAbort(pause(leftMs), signal);
      else return;
    }
  }
}

/** An unreferenced timer would let the program end in the middle of a stop. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
