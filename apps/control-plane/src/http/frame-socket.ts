import type { WebSocket } from '@fastify/websocket';
import { WrennError } from '@wrenn/protocol/errors';
import type { RawData } from 'ws';
import type { z } from 'zod';

/** Above this many unsent bytes the sender waits. */
const HIGH_WATER_BYTES = 1024 * 1024;
/** Above this many unread bytes the client has to wait. */
const RECEIVE_LIMIT_BYTES = 1024 * 1024;

/** Normal end, and an end because of an error that a frame told before; RFC 6455, 7.4.1. */
const CLOSE_NORMAL = 1000;
const CLOSE_ERROR = 1011;

/** What came from the client. */
export type Incoming<Frame> = { readonly frame: Frame } | { readonly binary: Buffer };

/** A WebSocket whose text messages are JSON frames of one schema, with backpressure in both directions. */
export class FrameSocket<Schema extends z.ZodType, Out> {
  readonly #socket: WebSocket;
  readonly #schema: Schema;
  readonly #gone = new AbortController();
  readonly #received: { readonly data: Buffer; readonly isBinary: boolean }[] = [];
  #receivedBytes = 0;
  #wake: (() => void) | undefined;

  /** Begins to listen at once, so that no early message is lost. */
  constructor(socket: WebSocket, schema: Schema) {
    this.#socket = socket;
    this.#schema = schema;
    socket.on('message', (data: RawData, isBinary: boolean) => this.#receive(toBuffer(data), isBinary));
    socket.once('close', () => {
      this.#gone.abort(new Error('the socket was closed'));
      this.#wake?.();
    });
    // A close follows.
    socket.on('error', () => undefined);
  }

  /** Aborted as soon as the socket is closed, by whichever side. */
  get gone(): AbortSignal {
    return this.#gone.signal;
  }

  /** Resolves when more may be sent. Sending to a closed socket does nothing. */
  async send(frame: Out): Promise<void> {
    await this.#write(JSON.stringify(frame));
  }

  async sendBinary(bytes: Uint8Array): Promise<void> {
    await this.#write(bytes);
  }

  /**
   * The next message, or undefined when the socket is closed.
   *
   * @throws WrennError `invalid_request` for a message that is no frame of the schema
   */
  async receive(): Promise<Incoming<z.output<Schema>> | undefined> {
    while (this.#received.length === 0) {
      if (this.gone.aborted) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const message = this.#received.shift();
    if (!message) return undefined;
    this.#receivedBytes -= message.data.length;
    if (this.#receivedBytes <= RECEIVE_LIMIT_BYTES && this.#socket.isPaused) this.#socket.resume();
    return message.isBinary ? { binary: message.data } : { frame: this.#parse(message.data.toString()) };
  }

  close(reason: 'done' | 'error'): void {
    this.#socket.close(reason === 'done' ? CLOSE_NORMAL : CLOSE_ERROR);
  }

  #receive(data: Buffer, isBinary: boolean): void {
    this.#received.push({ data, isBinary });
    this.#receivedBytes += data.length;
    if (this.#receivedBytes > RECEIVE_LIMIT_BYTES) this.#socket.pause();
    this.#wake?.();
  }

  #parse(text: string): z.output<Schema> {
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (cause) {
      throw new WrennError('invalid_request', { problem: 'a message is not valid JSON' }, { cause });
    }
    const { success, data, error } = this.#schema.safeParse(json);
    if (success) return data;
    const problem = error.issues.map(({ path, message }) => [...path, message].join(': ')).join('; ');
    throw new WrennError('invalid_request', { problem: problem.slice(0, 1000) });
  }

  async #write(message: string | Uint8Array): Promise<void> {
    const socket = this.#socket;
    if (socket.readyState !== socket.OPEN) return;
    if (socket.bufferedAmount < HIGH_WATER_BYTES) {
      socket.send(message);
      return;
    }
    // Called when the message has left this process, or the socket broke.
    await new Promise<void>((resolve) => socket.send(message, () => resolve()));
  }
}

function toBuffer(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}
