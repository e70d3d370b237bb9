import { once } from 'node:events';

/** A change of the inventory. `vm` is undefined where the VM was destroyed. */
export interface VmChange<Vm> {
  readonly id: string;
  readonly vm: Vm | undefined;
}

/** Tells any number of watchers of changes. A slow watcher gets the latest state of each VM, and so needs bounded memory. */
export class VmEvents<Vm> {
  readonly #watchers = new Set<Watcher<Vm>>();

  publish(change: VmChange<Vm>): void {
    for (const watcher of this.#watchers) watcher.add(change);
  }

  /** Begins at the moment of the call, before the first `next`. Ends when the signal fires. */
  watch(signal: AbortSignal): AsyncIterable<VmChange<Vm>[]> {
    const watcher = new Watcher<Vm>();
    this.#watchers.add(watcher);
    const leave = () => {
      this.#watchers.delete(watcher);
      watcher.close();
    };
    if (signal.aborted) leave();
    else signal.addEventListener('abort', leave, { once: true });
    return watcher;
  }
}

class Watcher<Vm> {
  readonly #pending = new Map<string, VmChange<Vm>>();
  readonly #changed = new EventTarget();
  #closed = false;

  add(change: VmChange<Vm>): void {
    this.#pending.set(change.id, change);
    this.#changed.dispatchEvent(new Event('change'));
  }

  close(): void {
    this.#closed = true;
    this.#changed.dispatchEvent(new Event('change'));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<VmChange<Vm>[]> {
    for (;;) {
      if (this.#pending.size > 0) {
        const changes = [...this.#pending.values()];
        this.#pending.clear();
        yield changes;
      } else if (this.#closed) {
        return;
      } else {
        await once(this.#changed, 'change');
      }
    }
  }
}
