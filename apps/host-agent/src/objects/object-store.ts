import type { Readable } from 'node:stream';
import { WrennError } from '@wrenn/protocol/errors';

/** Part of an object, in bytes: from `start`, up to but without `end`. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Where hibernated capsules are: objects under keys, which every host reaches. What a method throws is
 * `object_store_failed` when the store is at fault, the signal's reason when it aborts, and what the body throws.
 */
export interface ObjectStore {
  /**
   * Stores a whole object; a repeated put replaces it. Nobody ever sees half of it.
   *
   * @param sizeBytes where it is known: a body of another size is an error.
   */
  put(key: string, body: Readable | Uint8Array, sizeBytes: number | undefined, signal: AbortSignal): Promise<void>;
  /** The bytes of an object or of a part of it; fewer where it ends earlier. An object that is not there is an error. */
  get(key: string, range: ByteRange | undefined, signal: AbortSignal): Promise<Readable>;
  /** Undefined where there is no such object. */
  head(key: string, signal: AbortSignal): Promise<{ readonly sizeBytes: number } | undefined>;
  /** Unknown keys are a success. */
  delete(keys: readonly string[], signal: AbortSignal): Promise<void>;
  /** The keys that begin with `prefix`, in no special order. */
  list(prefix: string, signal: AbortSignal): AsyncIterable<string>;
}

/** `problem` is a clause for users ("it is full"): no secret, address, path or inner text. */
export function storeFailed(problem: string, cause?: unknown): WrennError {
  return new WrennError('object_store_failed', { problem }, cause === undefined ? {} : { cause });
}

const KEY = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(?:\/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,15}$/;

/**
 * Keys are names joined by slashes; no name begins with a dot, so that none leads out of a folder.
 *
 * @throws TypeError, which is a defect of the caller.
 */
export function checkKey(key: string): string {
  if (!KEY.test(key)) throw new TypeError(`"${key}" is not a key of an object`);
  return key;
}
