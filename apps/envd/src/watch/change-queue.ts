import { WrennError } from '@wrenn/protocol/errors';
import type { Change, WatchListener } from './watch-hub.ts';

/** Changes that may wait for a client that does not take them. */
const MAX_WAITING = 16_384;

/** Holds changes for one client, bounded. What does not fit becomes an error that the client gets; nothing is dropped. */
export class ChangeQueue implements WatchListener {
  #changes: Change[] = [];
  #failure: WrennError | undefined;
  #wake: (() => void) | undefined;
  /** Stops the watch; set by whoever started it. */
  stop: () => void = () => {};

  change(change: Change): void {
    if (this.#failure) return;
    if (this.#changes.length >= MAX_WAITING) {
      this.fail(new WrennError('events_lost', { problem: `more than ${MAX_WAITING} events were waiting to be taken` }));
      this.stop();
      return;
    }
    this.#changes.push(change);
    this.#wake?.();
  }

  fail(error: WrennError): void {
    this.#failure ??= error;
    this.#wake?.();
  }

  /** Everything that waits. Throws the failure once the changes before it are taken. */
  take(): Change[] {
    if (this.#changes.length === 0 && this.#failure) throw this.#failure;
    const taken = this.#changes;
    this.#changes = [];
    return taken;
  }

  /** Resolves when something waits, after the timeout, or when the signal says so. */
  changed(timeoutMs: number, signal: AbortSignal): Promise<'changed' | 'timeout' | 'aborted'> {
    return new Promise((resolve) => {
      const settle = (outcome: 'changed' | 'timeout' | 'aborted') => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        this.#wake = undefined;
        resolve(outcome);
      };
      const onAbort = () => settle('aborted');
      const timer = setTimeout(() => settle('timeout'), timeoutMs);
      this.#wake = () => settle('changed');
      if (signal.aborted) onAbort();
      else if (this.#changes.length > 0 || this.#failure) settle('changed');
      else signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}
