import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import { type Db, isDatabaseOutage } from '../database/database.ts';
import type { Operation, OperationKind, StoredError } from '../database/schema.ts';
import {
  adoptOrphans,
  findOperation,
  finishOperation,
  listLost,
  type OperationOutcome,
  setStep,
} from './operation-store.ts';
import type { OwnerSession } from './owner-session.ts';

/** Somebody waits for what a control plane began that has died; a look costs the database less than a millisecond. */
const ADOPTION_INTERVAL_MS = 5000;
/** Between two runs of an operation that the database stopped. */
const OUTAGE_RETRY_MS = 1000;

/** What a handler of one kind of operation works with. */
export interface OperationContext {
  readonly signal: AbortSignal;
  /** Records how far it is, on the way; the work goes on at once. */
  step(name: string): void;
}

/**
 * Does the work of one kind of operation. It may be run again from its beginning after a crash, so each of its steps
 * can be repeated.
 */
export type OperationHandler = (operation: Operation, context: OperationContext) => Promise<OperationOutcome>;

export type OperationHandlers = Readonly<Record<OperationKind, OperationHandler>>;

interface Running {
  readonly operation: Operation;
  /** Fires for an operation that is to fail. */
  readonly cancel: AbortController;
  /** Fires with HandedOver; also for one that was cancelled, and whose failure could not be recorded yet. */
  readonly handOver: AbortController;
  readonly ended: Promise<void>;
}

/** Why a handler was stopped without an outcome: another control plane goes on with it, or whoever starts next. */
class HandedOver extends Error {}

/** Whether a run that ends with this error is followed by another, here or elsewhere, that goes on from what it did. */
export function isRunAgain(error: unknown, signal: AbortSignal): boolean {
  return isDatabaseOutage(error) || signal.reason instanceof HandedOver;
}

/** Runs operations apart from the requests that asked for them. */
export class OperationRunner implements AsyncDisposable {
  readonly #db: Db;
  readonly #session: OwnerSession;
  readonly #handlers: OperationHandlers;
  readonly #log: Logger;
  readonly #running = new Map<string, Running>();
  #timer: NodeJS.Timeout | undefined;
  /** One look after the other: what one gives up and another takes back must not cross. */
  #looks = Promise.resolve();
  #closed = false;

  constructor(db: Db, session: OwnerSession, handlers: OperationHandlers, log: Logger) {
    this.#db = db;
    this.#session = session;
    this.#handlers = handlers;
    this.#log = log;
  }

  /** Goes on with what an earlier control plane left, now and whenever another one ends. */
  async start(): Promise<void> {
    await this.#adopt();
    this.#session.onReturn(() => this.#look());
    this.#timer = setInterval(() => this.#look(), ADOPTION_INTERVAL_MS);
    this.#timer.unref();
  }

  /** Begins the work. The row exists already. */
  run(operation: Operation): void {
    const { id } = operation;
    const earlier = this.#running.get(id);
    if (this.#closed || (earlier && !earlier.handOver.signal.aborted)) return;
    const [cancel, handOver] = [new AbortController(), new AbortController()];
    const work = () => this.#work(operation, cancel.signal, handOver.signal);
    // One that was handed over may come back before its handler has stopped.
    const ended = (earlier ? earlier.ended.then(work) : work()).finally(() => {
      if (this.#running.get(id)?.handOver === handOver) this.#running.delete(id);
    });
    this.#running.set(id, { operation, cancel, handOver, ended });
  }

  /**
   * Waits for the end of an operation, wherever it runs.
   *
   * @throws the operation's own WrennError when it failed; the signal's reason when that came first
   */
  async wait(id: string, signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const waiting = new AbortController();
      const finished = this.#session.nextFinish(id, AbortSignal.any([signal, waiting.signal]));
      // It may fail while the row is read, and then nobody awaits it yet.
      finished.catch(() => undefined);
      try {
        const operation = await findOperation(this.#db, id);
        if (!operation) throw new WrennError('not_found', { what: `Operation ${id}` });
        if (operation.state === 'succeeded') return;
        if (operation.state === 'failed') throw toWrennError(operation.error);
        await finished;
      } finally {
        waiting.abort();
      }
    }
  }

  /** Stops all operations for a capsule that run here but those of one kind, and waits until they have ended. */
  async cancelAllBut(capsuleId: string, kind: OperationKind, reason: WrennError): Promise<void> {
    const found = [...this.#running.values()].filter(
      ({ operation }) => operation.capsuleId === capsuleId && operation.kind !== kind,
    );
    for (const { cancel } of found) cancel.abort(reason);
    await Promise.all(found.map(({ ended }) => ended));
  }

  #look(): void {
    this.#looks = this.#looks
      .then(() => this.#letGo())
      .then(() => this.#adopt())
      .catch((err: unknown) => this.#log.warn({ err }, 'could not look for operations of others'));
  }

  /** Stops working on what another control plane took over, or has ended, while this one was taken for dead. */
  async #letGo(): Promise<void> {
    const running = new Map(this.#running);
    if (running.size === 0) return;
    for (const id of await listLost(this.#db, [...running.keys()], this.#session.owner)) {
      this.#log.info({ operation: id }, 'an operation has another owner');
      running.get(id)?.handOver.abort(new HandedOver());
    }
  }

  async #adopt(): Promise<void> {
    if (this.#closed) return;
    for (const operation of await adoptOrphans(this.#db, this.#session.owner)) {
      this.#log.info(
        { operation: operation.id, kind: operation.kind, step: operation.step },
        'going on with an operation',
      );
      this.run(operation);
    }
  }

  async #work(operation: Operation, cancelled: AbortSignal, handedOver: AbortSignal): Promise<void> {
    const log = this.#log.child({ operation: operation.id, kind: operation.kind, capsule: operation.capsuleId });
    const started = performance.now();
    // Only people read it: the work does not wait for its way to the disk.
    let steps = Promise.resolve();
    const step = (name: string) => {
      steps = steps
        .then(() => setStep(this.#db, operation.id, name))
        .catch((err: unknown) => log.debug({ err, step: name }, 'could not record a step'));
    };
    const context = { signal: AbortSignal.any([handedOver, cancelled]), step };
    while (!handedOver.aborted) {
      try {
        const outcome = await this.#handlers[operation.kind](operation, context);
        await steps;
        await finishOperation(this.#db, operation.id, outcome);
        log.info({ durationMs: Math.round(performance.now() - started) }, 'operation succeeded');
        return;
      } catch (err) {
        if (handedOver.aborted) return;
        log.warn({ err, durationMs: Math.round(performance.now() - started) }, 'operation failed');
        if (!isDatabaseOutage(err) && (await this.#recordFailure(operation, err, log))) return;
      }
      // The database stopped it in the middle: only a repeated run can say how it ended.
      await delay(OUTAGE_RETRY_MS, undefined, { signal: handedOver }).catch(() => undefined);
    }
  }

  /** @returns false when the database did not take it */
  async #recordFailure({ id }: Operation, error: unknown, log: Logger): Promise<boolean> {
    try {
      await finishOperation(this.#db, id, { error: toStored(error) });
      return true;
    } catch (err) {
      log.error({ err }, 'could not record that the operation failed');
      return false;
    }
  }

  /** Stops working; unfinished operations are gone on with by the next control plane. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    const running = [...this.#running.values()];
    for (const { handOver } of running) handOver.abort(new HandedOver());
    await Promise.all(running.map(({ ended }) => ended));
  }
}

function toStored(error: unknown): StoredError {
  const known = error instanceof WrennError ? error : new WrennError('internal_error');
  return { code: known.code, details: { ...known.details } };
}

function toWrennError(stored: StoredError | null): WrennError {
  return (stored && WrennError.fromBody(stored)) ?? new WrennError('internal_error');
}
