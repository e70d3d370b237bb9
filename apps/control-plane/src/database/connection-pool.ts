import { setTimeout as delay } from 'node:timers/promises';
import { Pool, type PoolClient, type PoolConfig } from 'pg';

/** For a server that does not answer any more. */
const LEAVE_TIMEOUT_MS = 1000;

/**
 * A pool that has ended when its connections have. That of node-postgres has ended before, and whoever then ends the
 * server or drops the database breaks connections of which nobody is left to hear.
 */
export class ConnectionPool extends Pool implements AsyncDisposable {
  readonly #leaveTimeoutMs: number;
  readonly #open = new Set<PoolClient>();

  /** @param onBroken an idle connection broke; of one in use, the query fails. Not called once the pool ends. */
  constructor(config: PoolConfig, onBroken: (error: Error) => void, leaveTimeoutMs = LEAVE_TIMEOUT_MS) {
    super(config);
    this.#leaveTimeoutMs = leaveTimeoutMs;
    this.on('connect', (client) => {
      this.#open.add(client);
      // The pool listens only to idle ones, and an error that nobody hears ends the process.
      client.on('error', () => undefined);
    });
    this.on('remove', (client) => this.#open.delete(client));
    this.on('error', (error) => {
      if (!this.ending) onBroken(error);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await super.end();
    const deadline = performance.now() + this.#leaveTimeoutMs;
    while (this.#open.size > 0 && performance.now() < deadline) await delay(5);
  }
}
