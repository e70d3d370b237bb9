import { WrennError } from '@wrenn/protocol/errors';
import type { ManagedProcess } from './managed-process.ts';

export type Selector = { readonly kind: 'pid'; readonly pid: number } | { readonly kind: 'tag'; readonly tag: string };

export interface ProcessTableOptions {
  /** How long an ended process can still be connected to. */
  readonly keepEndedMs?: number;
  /** How many ended processes are kept at most. */
  readonly keepEndedCount?: number;
}

/** The processes that run, and those that ended lately, so that nobody misses an end for having been away. */
export class ProcessTable {
  readonly #running = new Map<number, ManagedProcess>();
  /** In order of their end. */
  readonly #ended = new Map<number, { process: ManagedProcess; timer: NodeJS.Timeout }>();
  readonly #keepEndedMs: number;
  readonly #keepEndedCount: number;

  constructor(options: ProcessTableOptions = {}) {
    this.#keepEndedMs = options.keepEndedMs ?? 5 * 60_000;
    this.#keepEndedCount = options.keepEndedCount ?? 64;
  }

  running(): ManagedProcess[] {
    return [...this.#running.values()];
  }

  add(process: ManagedProcess): void {
    // The kernel or the client has used the name again; the older bearer is no longer meant by it.
    this.#forget(process.pid);
    const { tag } = process.description;
    if (tag !== undefined) {
      for (const [pid, ended] of this.#ended) if (ended.process.description.tag === tag) this.#forget(pid);
    }
    this.#running.set(process.pid, process);
    void process.ended.then(() => this.#retire(process));
  }

  /** The running process that is meant. Fails with `process_not_found`. */
  findRunning(selector: Selector): ManagedProcess {
    const process =
      selector.kind === 'pid'
        ? this.#running.get(selector.pid)
        : this.running().findLast((candidate) => candidate.description.tag === selector.tag);
    if (process === undefined || process.end !== undefined) throw notFound(selector);
    return process;
  }

  /** The process that is meant, running or lately ended. Fails with `process_not_found`. */
  find(selector: Selector): ManagedProcess {
    try {
      return this.findRunning(selector);
    } catch (error) {
      const ended = [...this.#ended.values(), ...this.running().map((process) => ({ process }))]
        .map(({ process }) => process)
        .findLast((process) =>
          selector.kind === 'pid' ? process.pid === selector.pid : process.description.tag === selector.tag,
        );
      if (ended === undefined) throw error;
      return ended;
    }
  }

  /** Forgets the process that ended first, to free what it keeps. False when there is none. */
  forgetOldest(): boolean {
    for (const pid of this.#ended.keys()) {
      if (this.#forget(pid)) return true;
    }
    return false;
  }

  /** Forgets every process that has ended. Those that run go on. */
  forgetEnded(): void {
    for (const pid of [...this.#ended.keys()]) this.#forget(pid);
  }

  #retire(process: ManagedProcess): void {
    if (this.#running.get(process.pid) === process) this.#running.delete(process.pid);
    this.#forget(process.pid);
    const timer = setTimeout(() => this.#forget(process.pid), this.#keepEndedMs).unref();
    this.#ended.set(process.pid, { process, timer });
    while (this.#ended.size > this.#keepEndedCount) {
      const [oldest] = this.#ended.keys();
      if (oldest === undefined || !this.#forget(oldest)) break;
    }
  }

  #forget(pid: number): boolean {
    const ended = this.#ended.get(pid);
    if (ended === undefined) return false;
    clearTimeout(ended.timer);
    this.#ended.delete(pid);
    ended.process.log.retire();
    return true;
  }
}

function notFound(selector: Selector): WrennError {
  return new WrennError('process_not_found', {
    selector: selector.kind === 'pid' ? selector.pid : `"${selector.tag}"`,
  });
}
