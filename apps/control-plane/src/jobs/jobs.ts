import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { sql } from 'drizzle-orm';
import type { ClientConfig } from 'pg';
import { fromDrizzle, type JobWithMetadata, PgBoss } from 'pg-boss';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { ErrorLog } from './error-log.ts';

/** Schema of the database in which jobs are kept. */
export const JOBS_SCHEMA = 'pgboss';
const POOL_SIZE = 4;
/** A control plane that died is noticed after this long by its jobs, and they are begun again elsewhere. */
const HEARTBEAT_S = 20;
/** New jobs announce themselves; this is how late one that was due later, or whose announcement was lost, can be. */
const POLL_S = 5;
const SUPERVISE_S = 15;
const STOP_BUDGET_MS = 8000;
/** After this long a stop is not waited for. */
const LEAVE_MS = STOP_BUDGET_MS + 2000;
/** How long a job that has ended is kept, for who wants to look. */
const KEEP_ENDED_S = 24 * 3600;
/** Longer than any job may wait for its time, its repeats included. */
const KEEP_WAITING_S = 30 * 24 * 3600;

/** How the jobs of a queue are run. */
export interface QueueSettings {
  /** A job that fails is repeated, each time after about twice as long; by default not at all. */
  readonly retry?: { readonly limit: number; readonly delayMs: number; readonly maxDelayMs: number };
  /** How many run at once in this control plane; default 1. */
  readonly concurrency?: number;
  /** How long one run may take; after it the signal fires and the run has failed. At least a second. */
  readonly deadlineMs: number;
}

/** Which run of a job this is. */
export interface Attempt {
  /** The first is 1. */
  readonly number: number;
  /** Whether it is not repeated when it fails. */
  readonly isLast: boolean;
}

/**
 * Does one job. A job whose control plane died is begun again by another, so what a handler does must bear to be done
 * twice. It fails by throwing.
 *
 * @param signal fires at the deadline, when this control plane stops, and when the job is in other hands
 */
export type JobHandler<Data extends object> = (data: Data, signal: AbortSignal, attempt: Attempt) => Promise<void>;

export interface EnqueueOptions {
  /** Not before; default: at once. */
  readonly startAfter?: Date;
  /**
   * Where a job with this key waits already, there is no second. That one is not begun before the transaction has
   * ended, so that it sees what the transaction wrote.
   */
  readonly singletonKey?: string;
}

export interface JobsOptions {
  readonly connection: ClientConfig;
  readonly log: Logger;
  /** Only for tests: how late due and orphaned jobs may be noticed, instead of seconds that fit many of them. */
  readonly paceS?: { readonly poll: number; readonly supervise: number; readonly heartbeat: number };
}

interface Queue {
  readonly settings: QueueSettings;
  readonly handler: JobHandler<object>;
}

/**
 * Work that outlives requests and control planes, each piece done by one of them. Queues are defined first, then
 * started; jobs can be put in from the start on.
 */
export class Jobs implements AsyncDisposable {
  readonly #boss: PgBoss;
  readonly #log: Logger;
  readonly #pace: NonNullable<JobsOptions['paceS']>;
  readonly #queues = new Map<string, Queue>();
  readonly #schedules = new Map<string, string>();
  readonly #closing = new AbortController();
  #isStarted = false;
  #stopped: Promise<void> | undefined;

  private constructor(boss: PgBoss, options: JobsOptions) {
    this.#boss = boss;
    this.#log = options.log;
    this.#pace = options.paceS ?? { poll: POLL_S, supervise: SUPERVISE_S, heartbeat: HEARTBEAT_S };
  }

  /** Connects, and makes or migrates the tables of jobs. Of several control planes at once one does that. */
  static async open(options: JobsOptions): Promise<Jobs> {
    const { connection, log, paceS } = options;
    const boss = new PgBoss({
      ...(connection as object),
      schema: JOBS_SCHEMA,
      max: POOL_SIZE,
      useListenNotify: true,
      ...(paceS ? { cronMonitorIntervalSeconds: 1, cronWorkerIntervalSeconds: 1 } : {}),
      superviseIntervalSeconds: paceS?.supervise ?? SUPERVISE_S,
      monitorIntervalSeconds: paceS?.supervise ?? SUPERVISE_S,
      registerInstance: false,
      openTelemetry: { enabled: false },
    });
    const errors = new ErrorLog(log);
    boss.on('error', (err) => errors.add(err));
    boss.on('warning', (warning) => log.warn({ warning }, 'a warning about jobs'));
    try {
      await boss.start();
    } catch (error) {
      await boss.stop({ graceful: false, timeout: 1000 });
      throw error;
    }
    return new Jobs(boss, options);
  }

  /** Says who does the jobs of a queue. Before `start`. */
  define<Data extends object>(queue: string, settings: QueueSettings, handler: JobHandler<Data>): void {
    if (this.#isStarted) throw new Error(`the queue ${queue} is defined after jobs were started`);
    if (this.#queues.has(queue)) throw new Error(`the queue ${queue} is defined twice`);
    this.#queues.set(queue, { settings, handler: handler as JobHandler<object> });
  }

  /**
   * Puts a job without data into a queue whenever it is time, once for all control planes. Before `start`.
   *
   * @param cron five fields, in UTC; an occurrence while no control plane ran is left out
   */
  schedule(queue: string, cron: string): void {
    if (this.#isStarted) throw new Error(`the queue ${queue} is scheduled after jobs were started`);
    this.#schedules.set(queue, cron);
  }

  /** Begins to work. */
  async start(): Promise<void> {
    this.#isStarted = true;
    for (const [name, { settings }] of this.#queues) await this.#ensureQueue(name, settings);
    for (const [name, cron] of this.#schedules) await this.#boss.schedule(name, cron, {}, { singletonKey: 'cron' });
    for (const [name, queue] of this.#queues) await this.#work(name, queue);
  }

  /**
   * Puts a job in, in a transaction of the caller: it is done if that is committed, and only then.
   *
   * @param data goes through JSON; ids rather than things, and never a secret
   */
  async enqueue(
    tx: Db,
    queue: string,
    data: object,
    { startAfter, singletonKey = randomUUID() }: EnqueueOptions = {},
  ): Promise<void> {
    if (!this.#queues.has(queue)) throw new Error(`there is no queue ${queue}`);
    const db = fromDrizzle(tx, sql);
    for (;;) {
      const id = await this.#boss.send(queue, data, { db, singletonKey, ...(startAfter ? { startAfter } : {}) });
      // Else one waits already: held, so that nobody begins it meanwhile. When somebody just has, there is room again.
      if (id !== null || (await holdWaiting(tx, queue, singletonKey))) return;
    }
  }

  async #ensureQueue(name: string, { retry, deadlineMs }: QueueSettings): Promise<void> {
    const options = {
      expireInSeconds: Math.ceil(deadlineMs / 1000),
      retryLimit: retry?.limit ?? 0,
      retryDelay: Math.ceil((retry?.delayMs ?? 0) / 1000),
      retryBackoff: true,
      retryDelayMax: Math.ceil((retry?.maxDelayMs ?? 0) / 1000),
      heartbeatSeconds: this.#pace.heartbeat,
      deleteAfterSeconds: KEEP_ENDED_S,
      retentionSeconds: KEEP_WAITING_S,
      notify: true,
    };
    // One waiting job a key; a job without a key has one of its own.
    await this.#boss.createQueue(name, { ...options, policy: 'short' });
    await this.#boss.updateQueue(name, options);
  }

  async #work(name: string, { settings, handler }: Queue): Promise<void> {
    const options = {
      includeMetadata: true,
      pollingIntervalSeconds: Math.min(this.#pace.poll, 2),
      notifyPollingIntervalSeconds: this.#pace.poll,
    } as const;
    for (let slot = 0; slot < (settings.concurrency ?? 1); slot += 1) {
      const worker: string = await this.#boss.work(name, options, async ([job]: JobWithMetadata<object>[]) => {
        if (!job) return;
        // Where there was one there may be more: looked for as soon as this has ended.
        this.#boss.notifyWorker(worker);
        const attempt = { number: job.retryCount + 1, isLast: job.retryCount >= job.retryLimit };
        try {
          this.#closing.signal.throwIfAborted();
          await handler(job.data ?? {}, AbortSignal.any([job.signal, this.#closing.signal]), attempt);
        } catch (err) {
          this.#log.warn({ err, queue: name, job: job.id, attempt: attempt.number }, 'a job failed');
          throw err;
        }
      });
    }
  }

  /** Ends the connections; jobs that run are told to end, and begun again by others when they do not in time. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    // First, since a job that is told to end can be due again at once, and is another control plane's then.
    await Promise.all([...this.#queues.keys()].map((name) => this.#boss.offWork(name, { wait: false })));
    this.#closing.abort(new Error('this control plane stops'));
    // A look for jobs that the database does not answer would hold it for ever.
    const late = new AbortController();
    const stopped = this.#boss.stop({ graceful: true, timeout: STOP_BUDGET_MS }).finally(() => late.abort());
    await Promise.race([stopped, delay(LEAVE_MS, undefined, { signal: late.signal }).catch(() => stopped)]);
  }
}

/** Keeps the waiting job with that key from being begun until the transaction ends. */
async function holdWaiting(tx: Db, queue: string, singletonKey: string): Promise<boolean> {
  const { rows } = await tx.execute(sql`
    SELECT id FROM ${sql.identifier(JOBS_SCHEMA)}.job
    WHERE name = ${queue} AND singleton_key = ${singletonKey} AND state = 'created'
    FOR KEY SHARE`);
  return rows.length > 0;
}
