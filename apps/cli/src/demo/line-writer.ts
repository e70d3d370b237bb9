import { Writable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';

/** A line and when its end arrived, in ms after the writer was made. */
export interface TimedLine {
  readonly text: string;
  readonly atMs: number;
}

/** Takes output and tells each line as it arrives. */
export class LineWriter extends Writable {
  readonly lines: TimedLine[] = [];
  readonly #started = performance.now();
  readonly #decoder = new StringDecoder('utf8');
  readonly #onLine: (line: TimedLine) => void;
  #rest = '';

  constructor(onLine: (line: TimedLine) => void) {
    super();
    this.#onLine = onLine;
  }

  /** All lines as one text. */
  get text(): string {
    return [...this.lines.map(({ text }) => text), this.#rest].join('\n').trimEnd();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const parts = (this.#rest + this.#decoder.write(chunk)).split('\n');
    this.#rest = parts.pop() ?? '';
    for (const text of parts) {
      const line = { text, atMs: performance.now() - this.#started };
      this.lines.push(line);
      this.#onLine(line);
    }
    done();
  }
}
