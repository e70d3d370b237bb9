import { randomInt } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Logger } from 'pino';
import { FINISHED_CHANNEL, OWNER_LOCK_CLASS } from './operation-store.ts';

const RETRY_MS = 500;
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

  async #attach(): Promise<void> {
    const client = await this.#connect();
    client.on('error', (err) => this.#log.warn({ err }, 'lost the session connection to the database'));
    client.on('notification', ({ payload }) => {
      if (!payload) return;
      this.#finished.emit(payload);
      this.#finished.emit(ANY);
    });
    client.once('end', () => {
      if (this.#client === client) void this.#reattach();
    });
    this.#client = client;
    await client.query('SELECT pg_advisory_lock($1, $2)', [OWNER_LOCK_CLASS, this.owner]);
    await client.query(`LISTEN ${FINISHED_CHANNEL}`);
  }

  async #reattach(): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#attach();
        for (const id of this.#finished.eventNames()) this.#finished.emit(id);
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
    await client?.end();
  }
}
