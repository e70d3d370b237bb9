import { Readable } from 'node:stream';
import type { CompletedPart, S3Client, S3ClientConfig } from '@aws-sdk/client-s3';
import { breakingOnAbort } from './breaking-on-abort.ts';
import { mapAhead } from './map-ahead.ts';
import { type ByteRange, checkKey, type ObjectStore, storeFailed } from './object-store.ts';
import { isMissingObject, s3Failure } from './s3-failure.ts';

/** S3 takes parts of 5 MiB and more. */
const PART_BYTES = 8 * 1024 * 1024;
/** S3 takes 10,000 parts; with parts that double after each 2,000, 2.4 TiB fit. */
const PARTS_OF_ONE_SIZE = 2_000;
const PARTS_AT_ONCE = 3;
const DELETES_AT_ONCE = 4;
const CONNECT_TIMEOUT_MS = 5_000;
/** Asked again with growing pauses when the server fails, is busy or drops the connection. */
const ATTEMPTS = 6;
const TIDY_TIMEOUT_MS = 15_000;
/** How long an aborted write waits for the answer to what it has sent. */
const LANDING_TIMEOUT_MS = 5_000;

export interface S3Options {
  readonly bucket: string;
  /** Before every key; empty, or ending with a slash. */
  readonly prefix: string;
  readonly region: string;
  /** Undefined for Amazon's own. */
  readonly endpoint: string | undefined;
  /** The bucket is named in the path instead of in the host name. */
  readonly pathStyle: boolean;
  /** Undefined: the client looks where Amazon's tools look (shared files, web identity, the machine's own role). */
  readonly credentials: S3Credentials | undefined;
  /** For one attempt of one request, up to the head of its answer. */
  readonly requestTimeoutMs: number;
}

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/** The client takes 0.15 s and 30 MB to load: only agents that use it pay for it. */
const loadSdk = () => import('@aws-sdk/client-s3');
type Sdk = Awaited<ReturnType<typeof loadSdk>>;
type S3Request<T> = (s3: { sdk: Sdk; client: S3Client }, signal: AbortSignal) => Promise<T>;

/** Objects in a bucket of any server that speaks S3. */
export class S3ObjectStore implements ObjectStore {
  readonly #options: S3Options;
  #client: Promise<{ sdk: Sdk; client: S3Client }> | undefined;

  constructor(options: S3Options) {
    this.#options = options;
  }

  async put(
    key: string,
    body: Readable | Uint8Array,
    sizeBytes: number | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const target = this.#target(key);
    signal.throwIfAborted();
    if (body instanceof Uint8Array) {
      checkSize(sizeBytes, body.length);
      await this.#putWhole(target, body, signal);
      signal.throwIfAborted();
      return;
    }
    const parts = partsOf(breakingOnAbort(body, signal));
    try {
      const first = (await parts.next()).value ?? Buffer.alloc(0);
      if (first.length < PART_BYTES) {
        checkSize(sizeBytes, first.length);
        await this.#putWhole(target, first, signal);
      } else {
        await this.#putParts(target, first, parts, sizeBytes, signal);
      }
      signal.throwIfAborted();
    } catch (error) {
      // The body breaks with an error of its own when the signal aborts.
      signal.throwIfAborted();
      throw error;
    } finally {
      await parts.return(undefined);
    }
  }

  async get(key: string, range: ByteRange | undefined, signal: AbortSignal): Promise<Readable> {
    if (range && range.end <= range.start) return Readable.from([]);
    const part = range ? { Range: `bytes=${range.start}-${range.end - 1}` } : {};
    const target = this.#target(key);
    const { Body } = await this.#send(signal, ({ sdk, client }, abortSignal) =>
      client.send(new sdk.GetObjectCommand({ ...target, ...part }), { abortSignal }),
    );
    if (!(Body instanceof Readable)) throw storeFailed('it gave an answer that Wrenn does not understand');
    return Body;
  }

  async head(key: string, signal: AbortSignal): Promise<{ readonly sizeBytes: number } | undefined> {
    const target = this.#target(key);
    const found = await this.#send(signal, async ({ sdk, client }, abortSignal) => {
      try {
        return await client.send(new sdk.HeadObjectCommand(target), { abortSignal });
      } catch (error) {
        if (isMissingObject(error)) return undefined;
        throw error;
      }
    });
    if (!found) return undefined;
    if (found.ContentLength === undefined) throw storeFailed('it gave an answer that Wrenn does not understand');
    return { sizeBytes: found.ContentLength };
  }

  async delete(keys: readonly string[], signal: AbortSignal): Promise<void> {
    const targets = keys.map((key) => this.#target(key));
    // One by one: not every server knows the request that deletes many.
    const deletes = mapAhead(targets, DELETES_AT_ONCE, (target) =>
      this.#send(signal, ({ sdk, client }, abortSignal) =>
        client.send(new sdk.DeleteObjectCommand(target), { abortSignal }),
      ),
    );
    for await (const _ of deletes) signal.throwIfAborted();
  }

  async *list(prefix: string, signal: AbortSignal): AsyncIterable<string> {
    const { bucket, prefix: own } = this.#options;
    let token: string | undefined;
    do {
      const input = { Bucket: bucket, Prefix: `${own}${prefix}`, ...(token ? { ContinuationToken: token } : {}) };
      const page = await this.#send(signal, ({ sdk, client }, abortSignal) =>
        client.send(new sdk.ListObjectsV2Command(input), { abortSignal }),
      );
      for (const { Key } of page.Contents ?? []) if (Key?.startsWith(own)) yield Key.slice(own.length);
      token = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (token);
  }

  #target(key: string) {
    return { Bucket: this.#options.bucket, Key: `${this.#options.prefix}${checkKey(key)}` };
  }

  async #putWhole(target: Target, body: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#write(signal, ({ sdk, client }, abortSignal) =>
      client.send(new sdk.PutObjectCommand({ ...target, Body: body }), { abortSignal }),
    );
  }

  async #putParts(
    target: Target,
    first: Buffer,
    rest: AsyncIterable<Buffer>,
    sizeBytes: number | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { UploadId } = await this.#write(signal, ({ sdk, client }, abortSignal) =>
      client.send(new sdk.CreateMultipartUploadCommand(target), { abortSignal }),
    );
    if (UploadId === undefined) throw storeFailed('it gave an answer that Wrenn does not understand');
    const upload = { ...target, UploadId };
    try {
      let size = 0;
      const Parts: CompletedPart[] = [];
      const done = mapAhead(numbered(first, rest), PARTS_AT_ONCE, async ({ PartNumber, Body }) => {
        size += Body.length;
        const { ETag } = await this.#send(signal, ({ sdk, client }, abortSignal) =>
          client.send(new sdk.UploadPartCommand({ ...upload, PartNumber, Body }), { abortSignal }),
        );
        if (ETag === undefined) throw storeFailed('it gave an answer that Wrenn does not understand');
        return { PartNumber, ETag };
      });
      for await (const part of done) Parts.push(part);
      checkSize(sizeBytes, size);
      await this.#write(signal, ({ sdk, client }, abortSignal) =>
        client.send(new sdk.CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts } }), { abortSignal }),
      );
    } catch (error) {
      await this.#send(AbortSignal.timeout(TIDY_TIMEOUT_MS), ({ sdk, client }, abortSignal) =>
        client.send(new sdk.AbortMultipartUploadCommand(upload), { abortSignal }),
      ).catch(() => {
        // A server that is gone keeps the parts until the bucket's own rule expires them; the first error says more.
      });
      throw error;
    }
  }

  /**
   * Sends what changes the bucket. When the signal aborts, the answer to what was sent is still waited for, a little:
   * otherwise the change could come after the request by which the caller takes it back, and stay.
   */
  async #write<T>(signal: AbortSignal, request: S3Request<T>): Promise<T> {
    signal.throwIfAborted();
    const waiting = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const leave = () => {
      const patience = Math.min(LANDING_TIMEOUT_MS, this.#options.requestTimeoutMs);
      timer = setTimeout(() => waiting.abort(signal.reason), patience);
    };
    signal.addEventListener('abort', leave, { once: true });
    try {
      return await this.#send(waiting.signal, (s3, abortSignal) => {
        // Opening the client takes a while, and nothing is sent yet.
        signal.throwIfAborted();
        return request(s3, abortSignal);
      });
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener('abort', leave);
      clearTimeout(timer);
    }
  }

  async #send<T>(signal: AbortSignal, request: S3Request<T>): Promise<T> {
    signal.throwIfAborted();
    const s3 = await this.#open();
    try {
      return await request(s3, signal);
    } catch (error) {
      signal.throwIfAborted();
      throw s3Failure(error);
    }
  }

  #open(): Promise<{ sdk: Sdk; client: S3Client }> {
    this.#client ??= loadSdk().then((sdk) => ({ sdk, client: new sdk.S3Client(clientConfig(this.#options)) }));
    return this.#client;
  }
}

interface Target {
  readonly Bucket: string;
  readonly Key: string;
}

function clientConfig(options: S3Options): S3ClientConfig {
  return {
    region: options.region,
    forcePathStyle: options.pathStyle,
    ...(options.endpoint ? { endpoint: options.endpoint } : {}),
    ...(options.credentials ? { credentials: options.credentials } : {}),
    maxAttempts: ATTEMPTS,
    requestHandler: {
      connectionTimeout: CONNECT_TIMEOUT_MS,
      requestTimeout: options.requestTimeoutMs,
      throwOnRequestTimeout: true,
    },
    // Hibernation has sums of its own; many servers do not know the trailing ones that the client sends otherwise.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  };
}

function checkSize(expected: number | undefined, actual: number): void {
  if (expected !== undefined && actual !== expected) {
    throw new TypeError(`An object of ${expected} bytes was given ${actual}`);
  }
}

/** The body in pieces of the size of a part; the last may be smaller. */
async function* partsOf(body: Readable): AsyncGenerator<Buffer, undefined, undefined> {
  let pieces: Buffer[] = [];
  let size = 0;
  let partBytes = PART_BYTES;
  let count = 0;
  for await (const piece of body as AsyncIterable<Buffer>) {
    pieces.push(piece);
    size += piece.length;
    if (size < partBytes) continue;
    yield Buffer.concat(pieces, size);
    pieces = [];
    size = 0;
    count += 1;
    if (count % PARTS_OF_ONE_SIZE === 0) partBytes *= 2;
  }
  if (size > 0) yield Buffer.concat(pieces, size);
}

async function* numbered(first: Buffer, rest: AsyncIterable<Buffer>) {
  let PartNumber = 1;
  yield { PartNumber, Body: first };
  for await (const Body of rest) {
    PartNumber += 1;
    yield { PartNumber, Body };
  }
}
