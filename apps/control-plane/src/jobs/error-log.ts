import type { Logger } from 'pino';

/** Between two lines about the same trouble. */
const QUIET_MS = 10_000;

/** Logs errors of what asks the database again and again: during an outage one line, not one a question. */
export class ErrorLog {
  readonly #log: Logger;
  #quietUntil = 0;
  #unsaid = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  add(err: unknown): void {
    const now = performance.now();
    if (now < this.#quietUntil) {
      this.#unsaid += 1;
      return;
    }
    this.#log.warn({ err, likeItBefore: this.#unsaid }, 'jobs are in trouble');
    this.#quietUntil = now + QUIET_MS;
    this.#unsaid = 0;
  }
}
