import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { patientTimeout } from '@wrenn/config/patient-timeout';
import {
  parseQmpMessage,
  QmpCommandError,
  type QmpCommandName,
  type QmpCommands,
  QmpConnectionError,
  type QmpEvent,
  type QmpShutdown,
  QmpTimeoutError,
} from './qmp-protocol.ts';

/** QEMU's answers are small; a longer line comes from a QEMU that must not be trusted further. */
const MAX_LINE_BYTES = 1024 * 1024;

interface Pending {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

type Arguments<C extends QmpCommandName> = QmpCommands[C]['arguments'];

/** One connection to a QEMU process. Commands may be in flight together; each has a deadline of its own. */
export class QmpClient {
  readonly #stream: Duplex;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeted = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<QmpConnectionError>();
  #closeReason: QmpConnectionError | undefined;
  #shutdown: QmpShutdown | undefined;
  #nextId = 1;
  #unread = '';

  /** @param stream a connection on which nothing has been read. The client owns it from now on. */
  private constructor(stream: Duplex) {
    this.#stream = stream;
    // A connection that is lost before anybody waits for the greeting is no unhandled rejection.
    this.#greeted.promise.catch(() => {});
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => this.#receive(text));
    stream.on('error', (cause) => this.#end(new QmpConnectionError('The connection to QEMU broke', { cause })));
    stream.on('close', () => this.#end(new QmpConnectionError('QEMU closed the connection')));
    stream.on('end', () => this.#end(new QmpConnectionError('QEMU closed the connection')));
    // A program that ended at once has closed it before.
    if (stream.destroyed || stream.readableEnded) this.#end(new QmpConnectionError('QEMU closed the connection'));
  }

  /** Takes over a connected stream: waits for QEMU's greeting and enters command mode. */
  static async open(stream: Duplex, signal: AbortSignal): Promise<QmpClient> {
    const client = new QmpClient(stream);
    try {
      await abortable(client.#greeted.promise, signal);
      await client.execute('qmp_capabilities', undefined, { signal, timeoutMs: 10_000 });
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Connects to the Unix socket on which QEMU listens. */
  static async connect(socketPath: string, signal: AbortSignal): Promise<QmpClient> {
    signal.throwIfAborted();
    const socket = connect(socketPath);
    try {
      const connected = Promise.withResolvers<void>();
      socket.once('connect', connected.resolve);
      socket.once('error', connected.reject);
      await abortable(connected.promise, signal);
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return QmpClient.open(socket, signal);
  }

  /** Settles once, with the reason, when the connection has ended. */
  get closed(): Promise<QmpConnectionError> {
    return this.#closed.promise;
  }

  /** What QEMU said about the end of its VM, once it has. */
  get shutdown(): QmpShutdown | undefined {
    return this.#shutdown;
  }

  /**
   * @throws QmpCommandError QEMU refused; QmpTimeoutError no answer in time; QmpConnectionError the connection ended;
   * or the signal's reason. After the last three QEMU may have carried the command out all the same.
   */
  async execute<C extends QmpCommandName>(
    command: C,
    args: Arguments<C>,
    options: { readonly signal?: AbortSignal; readonly timeoutMs: number },
  ): Promise<QmpCommands[C]['answer']> {
    options.signal?.throwIfAborted();
    if (this.#closeReason) throw this.#closeReason;
    const id = this.#nextId++;
    const answer = Promise.withResolvers<unknown>();
    this.#pending.set(id, { command, resolve: answer.resolve, reject: answer.reject });
    using limit = patientTimeout(options.timeoutMs);
    limit.signal.addEventListener('abort', () => {
      answer.reject(new QmpTimeoutError(`"${command}"`, options.timeoutMs));
    });
    try {
      this.#stream.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
      // The protocol ties the form of the answer to the command.
      return (await abortable(answer.promise, options.signal)) as QmpCommands[C]['answer'];
    } finally {
      this.#pending.delete(id);
    }
  }

  /** Calls `listener` for every event from now on. @returns a function that ends this. */
  subscribe(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Ends the connection; the VM goes on. Everything pending is rejected. Idempotent. */
  close(): void {
    this.#end(new QmpConnectionError('The connection to QEMU was closed on this side'));
  }

  #receive(text: string): void {
    const lines = (this.#unread + text).split('\n');
    this.#unread = lines.pop() ?? '';
    try {
      if (this.#unread.length > MAX_LINE_BYTES) throw new QmpConnectionError('QEMU sent a line without an end');
      for (const line of lines) if (line.trim() !== '') this.#dispatch(line);
    } catch (error) {
      this.#end(error instanceof QmpConnectionError ? error : new QmpConnectionError(String(error), { cause: error }));
    }
  }

  #dispatch(line: string): void {
    const message = parseQmpMessage(line);
    switch (message.kind) {
      case 'greeting':
        this.#greeted.resolve();
        break;
      case 'event':
        if (message.event.event === 'SHUTDOWN') this.#shutdown = message.event.data;
        for (const listener of this.#listeners) listener(message.event);
        break;
      case 'answer':
        this.#pending.get(message.id)?.resolve(message.value);
        break;
      case 'refusal': {
        const pending = this.#pending.get(message.id);
        pending?.reject(new QmpCommandError(pending.command, message.errorClass, message.description));
        break;
      }
      case 'ignored':
        break;
    }
  }

  #end(reason: QmpConnectionError): void {
    if (this.#closeReason) return;
    this.#closeReason = reason;
    this.#stream.destroy();
    this.#greeted.reject(reason);
    for (const pending of this.#pending.values()) pending.reject(reason);
    this.#closed.resolve(reason);
  }
}

/** The promise's outcome, or the signal's reason where that comes first. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
