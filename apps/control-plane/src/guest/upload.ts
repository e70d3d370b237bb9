import { type Readable, Transform } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { MultipartFile, MultipartValue } from '@fastify/multipart';
import { WrennError } from '@wrenn/protocol/errors';
import { guestPathSchema } from '@wrenn/protocol/rest/files';
import type { FastifyRequest } from 'fastify';

/** Room for what a multipart body has besides the file. */
const MULTIPART_OVERHEAD_BYTES = 64 * 1024;
const DISCARD_MS = 5000;

export interface UploadOptions {
  /** The query parameter `path`. */
  readonly path: string | undefined;
  /** Largest file in bytes; undefined: any size. */
  readonly limit: number | undefined;
}

/**
 * Hands the one file of a request on while it arrives.
 *
 * @param write gets a stream that fails when the file is too large or its end never comes
 * @throws WrennError `too_large` or `invalid_request`, or what `write` throws
 */
export async function receiveFile(
  request: FastifyRequest,
  { path, limit }: UploadOptions,
  write: (path: string, body: Readable) => Promise<void>,
): Promise<void> {
  const length = Number(request.headers['content-length'] ?? 0);
  if (limit !== undefined && length > limit + MULTIPART_OVERHEAD_BYTES) throw new WrennError('too_large', { limit });
  if (request.isMultipart()) await receiveForm(request, { path, limit }, write);
  else if (path === undefined)
    throw new WrennError('invalid_request', { problem: 'the query parameter path is missing' });
  else if (request.body === undefined) await write(path, request.raw.pipe(limiter(limit)));
  else await write(path, passOn(request.body as Readable, limit));
}

async function receiveForm(
  request: FastifyRequest,
  options: UploadOptions,
  write: (path: string, body: Readable) => Promise<void>,
): Promise<void> {
  let { path } = options;
  let isWritten = false;
  for await (const part of parts(request)) {
    if (part.type === 'field') {
      if (part.fieldname === 'path') path = parsePath(part.value);
      continue;
    }
    if (isWritten) throw new WrennError('invalid_request', { problem: 'there is more than one file' });
    if (path === undefined) {
      throw new WrennError('invalid_request', { problem: 'the field path must come before the file' });
    }
    await write(path, passOn(part.file, options.limit));
    isWritten = true;
  }
  if (!isWritten) throw new WrennError('invalid_request', { problem: 'the field file is missing' });
}

async function* parts(request: FastifyRequest): AsyncGenerator<MultipartFile | MultipartValue> {
  try {
    yield* request.parts({ limits: { fileSize: Number.POSITIVE_INFINITY, files: 2, fields: 16, fieldSize: 16_384 } });
  } catch (error) {
    if (error instanceof WrennError) throw error;
    throw new WrennError(
      'invalid_request',
      { problem: 'the multipart body is malformed or cut off' },
      { cause: error },
    );
  }
}

function parsePath(value: unknown): string {
  const { success, data, error } = guestPathSchema.safeParse(value);
  if (!success) throw new WrennError('invalid_request', { problem: `path: ${error.issues[0]?.message}` });
  return data;
}

/** The same bytes; fails with the source, which `pipe` alone would not pass on. */
function passOn(source: Readable, limit: number | undefined): Readable {
  const target = limiter(limit);
  source.once('error', (error) => target.destroy(error));
  source.once('close', () => {
    if (!source.readableEnded) target.destroy(new Error('the upload was cut off'));
  });
  return source.pipe(target);
}

function limiter(limit: number | undefined): Transform {
  let bytes = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      bytes += chunk.length;
      if (limit !== undefined && bytes > limit) callback(new WrennError('too_large', { limit }));
      else callback(null, chunk);
    },
  });
}

/**
 * Reads what is left of a refused upload for a moment. Many clients read the answer only after they have sent
 * everything, and would see a broken connection instead.
 */
export async function discardBody(request: FastifyRequest): Promise<void> {
  const { raw } = request;
  if (raw.complete || raw.destroyed) return;
  raw.unpipe();
  raw.resume();
  await finished(raw, { signal: AbortSignal.timeout(DISCARD_MS) }).catch(() => undefined);
}
