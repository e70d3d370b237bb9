import type { Readable } from 'node:stream';
import type { ByteRange, ObjectStore } from '../object-store.ts';

/** A store that counts what goes through it. */
export class CountingStore implements ObjectStore {
  readonly #store: ObjectStore;
  /** Objects that were put, in order. */
  readonly puts: string[] = [];
  /** Parts that were asked for, in order. */
  readonly gets: { readonly key: string; readonly start: number; readonly end: number }[] = [];
  /** Called before each get; what it throws is the get's answer. */
  beforeGet: (key: string) => void | Promise<void> = () => undefined;

  constructor(store: ObjectStore) {
    this.#store = store;
  }

  put(key: string, body: Readable | Uint8Array, sizeBytes: number | undefined, signal: AbortSignal): Promise<void> {
    this.puts.push(key);
    return this.#store.put(key, body, sizeBytes, signal);
  }

  async get(key: string, range: ByteRange | undefined, signal: AbortSignal): Promise<Readable> {
    await this.beforeGet(key);
    this.gets.push({ key, start: range?.start ?? 0, end: range?.end ?? Number.POSITIVE_INFINITY });
    return this.#store.get(key, range, signal);
  }

  head(key: string, signal: AbortSignal): Promise<{ readonly sizeBytes: number } | undefined> {
    return this.#store.head(key, signal);
  }

  delete(keys: readonly string[], signal: AbortSignal): Promise<void> {
    return this.#store.delete(keys, signal);
  }

  list(prefix: string, signal: AbortSignal): AsyncIterable<string> {
    return this.#store.list(prefix, signal);
  }

  /** Bytes that were asked for of content, and not of indexes. */
  get contentBytes(): number {
    return this.#content.reduce((sum, { start, end }) => sum + end - start, 0);
  }

  /** Whether any byte of content was asked for twice. */
  get hasRepeats(): boolean {
    const sorted = this.#content.toSorted((a, b) => (a.key === b.key ? a.start - b.start : a.key < b.key ? -1 : 1));
    return sorted.some((part, at) => {
      const next = sorted[at + 1];
      return next?.key === part.key && next.start < part.end;
    });
  }

  get #content() {
    return this.gets.filter(({ key }) => !key.endsWith('/index.json'));
  }
}
