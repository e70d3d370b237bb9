import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { InputQueue } from './input-queue.ts';
import type { LastingProcess } from './lasting-process.ts';
import { closeStdin, sendInput, signalProcess } from './processes.ts';

/** How long what a client sent before it left may take to arrive. */
const LAST_WORDS_MS = 10_000;

/** The input of one client to one process. */
export interface ClientInputOptions {
  readonly process: LastingProcess;
  readonly selector: string;
  readonly kind: 'stdin' | 'pty';
  /** The client's name for itself, by which it may go on over another socket. */
  readonly inputId: string | null | undefined;
  /** Bytes that it knows to have arrived. */
  readonly inputOffset: number;
  /** Acknowledges bytes to a client that named itself. */
  readonly acknowledge: (bytes: number) => void;
  readonly onLost: (error: WrennError) => void;
}

/** What a client sends to a process, kept until it has arrived there. */
export function openClientInput(options: ClientInputOptions, signal: AbortSignal): InputQueue {
  const { process, selector, kind, inputId, inputOffset, acknowledge, onLost } = options;
  const writer = inputId ?? randomUUID();
  const target = {
    send: (bytes: Uint8Array, offset: number) =>
      process.act((guest) => sendInput(guest, selector, { kind, bytes, writer, offset }, signal), signal),
    end: () => unlessEnded(process.act((guest) => closeStdin(guest, selector, signal), signal)),
    onTaken: (bytes: number) => {
      if (inputId) acknowledge(bytes);
    },
    onLost: (error: unknown, bytes: number) => {
      const isClosed = error instanceof WrennError && error.code === 'process_input_closed';
      onLost(isClosed ? error : new WrennError('input_lost', { bytes, selector }, { cause: error }));
    },
  };
  return new InputQueue(target, inputOffset, signal);
}

/**
 * Lets what a client sent arrive, as far as it can in a short time, after the client itself has gone: a `stop`, or the
 * last of its input.
 */
export async function settleLastWords(work: Promise<void> | undefined): Promise<void> {
  const late = new AbortController();
  try {
    await Promise.race([work, delay(LAST_WORDS_MS, undefined, { signal: late.signal })]);
  } finally {
    late.abort();
  }
}

/** Signals a process, as soon as its capsule is awake. That it has ended meanwhile is no error. */
export function signalLasting(
  process: LastingProcess,
  selector: string,
  number: number,
  signal: AbortSignal,
): Promise<void> {
  return unlessEnded(process.act((guest) => signalProcess(guest, selector, number, signal), signal));
}

/** A process may end just before it is asked for something; its exit tells the client all there is to know. */
export async function unlessEnded(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof WrennError) || error.code !== 'process_not_found') throw error;
  }
}
