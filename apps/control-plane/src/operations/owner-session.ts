import { randomInt } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Logger } from 'pino';
import type { Announcement } from '../shared/announce.ts';
import { FINISHED_CHANNEL, OWNER_LOCK_CLASS } from './operation-store.ts';

const RETRY_MS = 500;
/** For a server that does not answer any more. */
const LEAVE_TIMEOUT_MS = 1000;
/** Told of every operation; the others are told of one, by its id. */
const ANY = Symbol('any operation');

/**
 * The presence of this control plane in the database: a connection that holds the advisory lock of its number, so that
 * others see that its operations are in good hands, and that hears when operations finish anywhere.
 */
export class OwnerSession implements AsyncDisposable {
  readonly owner = randomInt(1, 2 ** 31);
  readonly #connect: () => Promise<Client>;
  readonly #log: Logger;
  readonly #finished = new EventEmitter().setMaxListeners(0);
  readonly #listeners = new Map<string, (payload: string | undefined) => void>();
  readonly #onReturn: (() => void)[] = [];
  #client: Client | undefined;
  #closed = false;

  private constructor(connect: () => Promise<Client>, log: Logger) {
    this.#connect = connect;
    this.#log = log;
  }

  static async open(connect: () => Promise<Client>, log: Logger): Promise<OwnerSession> {
    const session = new OwnerSession(connect, log);
    await session.#attach();
    return session;
  }

  /** Resolves when an operation finishes anywhere, or when announcements may have been missed. */
  async nextFinish(id: string, signal: AbortSignal): Promise<void> {
    await once(this.#finished, id, { signal });
  }

  /** Calls whenever an operation finishes anywhere, or when announcements may have been missed. */
  onFinish(listener: () => void): void {
    this.#finished.on(ANY, listener);
  }

  /** Calls when it is present again after a time in which others took it for dead, and may have taken its operations. */
  onReturn(listener: () => void): void {
    this.#onReturn.push(listener);
  }

  /**
   * Hears what is announced on another channel.
   *
   * @param channel a name without quotes
   * @param onPayload is given undefined when announcements may have been missed
   */
  async listen(channel: string, onPayload: (payload: string | undefined) => void): Promise<void> {
    this.#listeners.set(channel, onPayload);
    // Without a connection now, the next one listens.
    await this.#client?.query(`LISTEN ${channel}`).catch((err: unknown) => this.#log.warn({ err }, 'could not listen'));
  }

  /** Something was announced, by whichever way it came. */
  hear({ channel, payload }: Announcement): void {
    if (channel !== FINISHED_CHANNEL) {
      this.#listeners.get(channel)?.(payload);
      return;
    }
    this.#finished.emit(payload);
    this.#finished.emit(ANY);
  }

  /** Announcements may have been missed. */
  missed(): void {
    // Whoever waits for an event with `once` also listens for this one, by which it fails.
    const names = this.#finished.eventNames().filter((name) => name !== 'error');
    for (const name of names) this.#finished.emit(name);
    for (const onPayload of this.#listeners.values()) onPayload(undefined);
  }

  async #attach(): Promise<void> {
    const client = await this.#connect();
    client.on('error', (err) => this.#log.warn({ err }, 'lost the session connection to the database'));
    client.on('notification', ({ channel, payload }) => {
      if (payload) this.hear({ channel, payload });
    });
    try {
      await client.query('SELECT pg_advisory_lock($1, $2)', [OWNER_LOCK_CLASS, this.owner]);
      await client.query(`LISTEN ${FINISHED_CHANNEL}`);
      for (const channel of this.#listeners.keys()) await client.query(`LISTEN ${channel}`);
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
    if (this.#closed) return client.end();
    // Only from here on: one that broke before is tried again by who attached it.
    this.#client = client;
    client.once('end', () => {
      if (this.#client !== client) return;
      this.#client = undefined;
      void this.#reattach();
    });
  }

  async #reattach(): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#attach();
        this.missed();
        for (const listener of this.#onReturn) listener();
        return;
      } catch (err) {
        this.#log.warn({ err }, 'no session connection to the database');
        await delay(RETRY_MS);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const client = this.#client;
    this.#client = undefined;
    if (!client) return;
    const late = setTimeout(() => client.connection.stream.destroy(), LEAVE_TIMEOUT_MS);
    await client.end();
    clearTimeout(late);
  }
}
