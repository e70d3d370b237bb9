import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from '@redis/client';
import { patientTimeout } from '@wrenn/config/patient-timeout';
import type { Logger } from 'pino';

const CONNECT_TIMEOUT_MS = 2000;
/** A login waits for it. Redis answers within a millisecond, or something is wrong. */
const COMMAND_TIMEOUT_MS = 1000;
/** A server that hangs is noticed although nobody asks it for anything. */
const PING_EVERY_MS = 2000;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 2000;

export type RedisClient = ReturnType<typeof openClient>;

/** Redis was not there, or did not answer in time: then it is not known whether it did what it was asked for. */
export class RedisAwayError extends Error {
  override readonly name = 'RedisAwayError';
}

export interface RedisLinkOptions {
  readonly url: string;
  readonly log: Logger;
  /** Prepares each new connection. It counts as there when this is done. */
  readonly prepare?: (client: RedisClient) => Promise<void>;
  /** A connection is there: what was sent between the last one and this did not come. */
  readonly onUp?: () => void;
}

/**
 * One connection to Redis, made again whenever it ends. Nothing waits for a server that is away: commands fail at once
 * until it is back, and one that does not answer in time takes the connection with it.
 */
export class RedisLink implements AsyncDisposable {
  readonly #options: RedisLinkOptions;
  readonly #closing = new AbortController();
  readonly #keeping: Promise<void>;
  #up: { readonly client: RedisClient; readonly epoch: string } | undefined;
  #wasToldAway = false;

  constructor(options: RedisLinkOptions) {
    this.#options = options;
    this.#keeping = this.#keep();
  }

  get isUp(): boolean {
    return this.#up !== undefined;
  }

  /**
   * Runs commands. They get the server's epoch, which is another one after each of its starts: what a server that came
   * back has from its disk may be older than what it was told.
   *
   * @throws RedisAwayError
   */
  async run<T>(work: (client: RedisClient, epoch: string) => Promise<T>): Promise<T> {
    const up = this.#up;
    if (!up) throw new RedisAwayError('there is no connection to Redis');
    try {
      return await within(COMMAND_TIMEOUT_MS, work(up.client, up.epoch));
    } catch (cause) {
      if (cause instanceof TimeoutError) end(up.client);
      throw new RedisAwayError('Redis did not do what it was asked for', { cause });
    }
  }

  async #keep(): Promise<void> {
    const { signal } = this.#closing;
    let retryMs = FIRST_RETRY_MS;
    while (!signal.aborted) {
      const client = openClient(this.#options.url);
      // What it says here is said once more by what it makes fail.
      client.on('error', (err: unknown) => this.#options.log.debug({ err }, 'the connection to Redis broke'));
      try {
        await this.#stayWith(client, () => {
          retryMs = FIRST_RETRY_MS;
        });
      } catch (err) {
        if (!signal.aborted && !this.#wasToldAway) {
          this.#options.log.warn({ err }, 'Redis is away; PostgreSQL stands in for it');
          this.#wasToldAway = true;
        }
      } finally {
        this.#up = undefined;
        end(client);
      }
      await delay(retryMs * (0.5 + Math.random()), undefined, { signal }).catch(() => undefined);
      retryMs = Math.min(2 * retryMs, LAST_RETRY_MS);
    }
  }

  /** Throws when the connection has ended, or does not answer. */
  async #stayWith(client: RedisClient, onUp: () => void): Promise<void> {
    const { signal } = this.#closing;
    await within(CONNECT_TIMEOUT_MS, client.connect());
    const epoch = /^run_id:(\w+)/m.exec(await within(COMMAND_TIMEOUT_MS, client.info('server')))?.[1];
    if (epoch === undefined) throw new Error('INFO of Redis has no run_id');
    await within(COMMAND_TIMEOUT_MS, this.#options.prepare?.(client) ?? Promise.resolve());
    signal.throwIfAborted();
    this.#up = { client, epoch };
    onUp();
    if (this.#wasToldAway) this.#options.log.info('Redis is back');
    this.#wasToldAway = false;
    this.#options.onUp?.();
    const ended = new AbortController();
    client.once('end', () => ended.abort(new Error('the connection to Redis ended')));
    client.once('error', (error: unknown) => ended.abort(error));
    const over = AbortSignal.any([signal, ended.signal]);
    while (client.isReady) {
      await delay(PING_EVERY_MS, undefined, { signal: over });
      await within(COMMAND_TIMEOUT_MS, client.ping());
    }
    throw new Error('the connection to Redis ended');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    const client = this.#up?.client;
    if (client) end(client);
    await this.#keeping;
  }
}

/** It does nothing by itself: neither does it connect again, nor keep commands for later. */
function openClient(url: string) {
  return createClient({
    url,
    name: 'wrenn-cp',
    disableOfflineQueue: true,
    socket: { connectTimeout: CONNECT_TIMEOUT_MS, reconnectStrategy: false },
  });
}

function end(client: RedisClient): void {
  if (client.isOpen) client.destroy();
}

class TimeoutError extends Error {
  override readonly name = 'TimeoutError';
}

async function within<T>(limitMs: number, work: Promise<T>): Promise<T> {
  using limit = patientTimeout(limitMs);
  const late = Promise.withResolvers<never>();
  limit.signal.addEventListener('abort', () => {
    late.reject(new TimeoutError(`Redis did not answer within ${limitMs} ms`));
  });
  return await Promise.race([work, late.promise]);
}
