import { constants } from 'node:os';
import { EXIT } from './cli-error.ts';

/** The person, or the system, wants this command to end. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly exitCode: number;

  constructor(signal: NodeJS.Signals) {
    super(`interrupted by ${signal}`);
    this.exitCode = 128 + constants.signals[signal];
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export interface Interrupts {
  /** Aborts, with an Interrupted, at the first signal that nothing else takes. */
  readonly signal: AbortSignal;
  /** Gives signals to `handler` until it is disposed. A handler that answers false leaves the signal to the default. */
  handle(handler: (signal: NodeJS.Signals) => boolean): Disposable;
}

/**
 * Makes the first Ctrl-C (or SIGTERM, or SIGHUP) abort the command, so that it cleans up; the third ends it at once.
 * A reader of our output that went away counts as a signal too.
 */
export function watchInterrupts(): Interrupts {
  const controller = new AbortController();
  const handlers: ((signal: NodeJS.Signals) => boolean)[] = [];
  let unhandled = 0;
  const interrupt = (signal: NodeJS.Signals) => {
    if (handlers.at(-1)?.(signal) === true) return;
    unhandled += 1;
    if (unhandled === 1) controller.abort(new Interrupted(signal));
    else if (unhandled === 2) process.stderr.write('\nwrenn: cleaning up; Ctrl-C once more leaves at once\n');
    else process.exit(EXIT.interrupted);
  };
  for (const signal of SIGNALS) process.on(signal, interrupt);
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', () => controller.abort(new Interrupted('SIGPIPE')));
  }
  return {
    signal: controller.signal,
    handle(handler) {
      handlers.push(handler);
      return { [Symbol.dispose]: () => void handlers.splice(handlers.indexOf(handler), 1) };
    },
  };
}
