import { setTimeout as delay } from 'node:timers/promises';
import { CliError } from '../cli-error.ts';
import { ApiError } from './api-error.ts';
import { ConnectionLost } from './socket.ts';

const GIVE_UP_AFTER_MS = 120_000;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 2000;

/** Errors of the API that pass: a part of the platform is being restarted. */
const PASSING = ['shutting_down', 'host_unavailable', 'guest_unreachable', 'database_unavailable', 'unknown'];

export interface ReattachOptions {
  /** How to go on by hand. */
  readonly remedy: string;
  /** Told once for each loss. */
  readonly onLost: (message: string) => void;
  readonly giveUpAfterMs?: number;
}

/** Decides when to try again after a connection to something that goes on in a capsule was lost. */
export class Reattach {
  readonly #options: ReattachOptions;
  #lostAtMs: number | undefined;
  #retryMs = FIRST_RETRY_MS;

  constructor(options: ReattachOptions) {
    this.#options = options;
  }

  /** The connection stands again. */
  restored(): void {
    this.#lostAtMs = undefined;
    this.#retryMs = FIRST_RETRY_MS;
  }

  /**
   * Waits until the next attempt may be made.
   *
   * @throws the error, when it does not pass by itself; CliError when it has lasted too long
   */
  async lost(error: unknown, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!passes(error)) throw error;
    const { remedy, onLost, giveUpAfterMs = GIVE_UP_AFTER_MS } = this.#options;
    if (this.#lostAtMs === undefined) {
      this.#lostAtMs = performance.now();
      onLost(`${error.message} Attaching again …`);
    }
    if (performance.now() - this.#lostAtMs > giveUpAfterMs) {
      const seconds = Math.round(giveUpAfterMs / 1000);
      throw new CliError(`The connection did not come back within ${seconds} s.`, remedy, { cause: error });
    }
    await delay(this.#retryMs, undefined, { signal }).catch(() => signal.throwIfAborted());
    this.#retryMs = Math.min(this.#retryMs * 2, LAST_RETRY_MS);
  }
}

function passes(error: unknown): error is CliError {
  return error instanceof ConnectionLost || (error instanceof ApiError && isPassing(error));
}

/** Whether the same request may succeed a little later. */
export function isPassing({ reason }: ApiError): boolean {
  return PASSING.includes(reason);
}
