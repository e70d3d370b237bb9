import type { Logger } from 'pino';

const TELL_AGAIN_MS = 3_600_000;

/** Logs a state when it begins, and once an hour as long as it lasts. */
export class StateLog {
  readonly #log: Logger;
  #state = '';
  #toldAtMs = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** A state that is not well. The same `state` again is the same one, whatever else is said of it. */
  is(state: string, level: 'warn' | 'error', fields: object, message: string): void {
    const nowMs = performance.now();
    if (state === this.#state && nowMs - this.#toldAtMs < TELL_AGAIN_MS) return;
    this.#state = state;
    this.#toldAtMs = nowMs;
    this.#log[level](fields, message);
  }

  /** All is well; said only after something else. */
  isWell(fields: object, message: string): void {
    if (this.#state === '') return;
    this.#state = '';
    this.#log.info(fields, message);
  }
}
