import { connect, type Socket } from 'node:net';

/** What a request is, as it goes over the wire. */
export interface RawRequest {
  readonly name: string;
  readonly bytes: Buffer;
  readonly status: number;
}

const HEAD_END = '\r\n\r\n';
const ANSWER_TIMEOUT_MS = 60_000;

/** A request that is written once and sent many times. */
export function rawRequest(
  name: string,
  method: string,
  path: string,
  { headers = {}, json, status = 200 }: { headers?: Record<string, string>; json?: unknown; status?: number } = {},
): RawRequest {
  const body = json === undefined ? '' : JSON.stringify(json);
  const all = {
    host: 'localhost',
    ...headers,
    ...(body ? { 'content-type': 'application/json', 'content-length': `${Buffer.byteLength(body)}` } : {}),
  };
  const lines = Object.entries(all).map(([key, value]) => `${key}: ${value}\r\n`);
  return { name, bytes: Buffer.from(`${method} ${path} HTTP/1.1\r\n${lines.join('')}\r\n${body}`), status };
}

/** One kept connection. It does so little itself that what it measures is the server. */
export class HttpConnection implements Disposable {
  readonly #socket: Socket;
  #received: Buffer[] = [];
  #wanted: PromiseWithResolvers<Buffer> | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay();
    socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy(new Error('no answer came in time')));
    socket.on('data', (chunk) => this.#receive(chunk));
    socket.on('error', (error) => this.#wanted?.reject(error));
    socket.on('close', () => this.#wanted?.reject(new Error('the server closed the connection')));
  }

  static async open(port: number): Promise<HttpConnection> {
    const socket = connect({ host: '127.0.0.1', port });
    const opened = Promise.withResolvers<void>();
    socket.once('connect', opened.resolve);
    socket.once('error', opened.reject);
    await opened.promise;
    return new HttpConnection(socket);
  }

  /** Resolves with the whole answer. @throws Error for another status than the request expects */
  async send({ bytes, status, name }: RawRequest): Promise<Buffer> {
    this.#wanted = Promise.withResolvers();
    this.#socket.write(bytes);
    const answer = await this.#wanted.promise;
    const got = Number(answer.toString('latin1', 9, 12));
    if (got !== status) throw new Error(`${name} was answered with ${got}: ${answer.toString('utf8', 0, 2000)}`);
    return answer;
  }

  #receive(chunk: Buffer): void {
    this.#received.push(chunk);
    const all = this.#received.length === 1 ? chunk : Buffer.concat(this.#received);
    const end = all.indexOf(HEAD_END);
    if (end < 0) return;
    const length = /\r\ncontent-length: (\d+)/i.exec(all.toString('latin1', 0, end))?.[1];
    if (length === undefined) throw new Error('the answer does not tell its length');
    if (all.length < end + HEAD_END.length + Number(length)) return;
    this.#received = [];
    this.#wanted?.resolve(all);
  }

  [Symbol.dispose](): void {
    this.#wanted = undefined;
    this.#socket.destroy();
  }
}

/** Body of an answer that holds JSON. */
export function jsonOf(answer: Buffer): unknown {
  return JSON.parse(answer.toString('utf8', answer.indexOf(HEAD_END) + HEAD_END.length));
}
