import type { IncomingMessage } from 'node:http';
import { basename } from 'node:path';
import { finished, type Readable, type Writable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import type { BusboyHeaders } from '@fastify/busboy';
import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf } from '../errors.ts';
import { metadataFromHeaders, readMetadata } from '../filesystem/metadata.ts';
import type { GuestState } from '../guest-state.ts';
import { resolveUserPath } from '../users/paths.ts';
import { bodyEncoding } from './content-encoding.ts';
import { authorizeFileRequest } from './file-request.ts';
import { replaceFile } from './replace-file.ts';

/** E2B's description of a file that was written. */
export interface WrittenFile {
  readonly path: string;
  readonly name: string;
  readonly type: 'file';
  readonly metadata?: Record<string, string>;
}

/** POST /files: one file as the raw body, or several as parts named `file` of a form. Constant memory. */
export async function upload(
  request: IncomingMessage,
  query: URLSearchParams,
  state: GuestState,
): Promise<WrittenFile[]> {
  const { path, account } = authorizeFileRequest(request, query, 'write', state);
  const metadata = metadataFromHeaders(request.headersDistinct);
  const encoding = bodyEncoding(request.headers['content-encoding']);
  const mediaType = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase() ?? '';
  const write = async (named: string, content: AsyncIterable<Uint8Array>): Promise<WrittenFile> => {
    const target = resolveUserPath(named, account, state.defaultWorkdir);
    await replaceFile(target, content, account, metadata);
    return describeWritten(target);
  };

  if (mediaType === 'application/octet-stream') {
    if (path === undefined) {
      throw new WrennError('invalid_request', { problem: 'a raw body needs the path query parameter' });
    }
    return [await withBody(request, encoding, (body) => write(path, iterate(body)))];
  }
  if (!mediaType.startsWith('multipart/')) {
    throw new WrennError('invalid_request', {
      problem: `Content-Type ${mediaType || '(none)'} is not multipart/form-data or application/octet-stream`,
    });
  }
  const seen = new Set<string>();
  const written: WrittenFile[] = [];
  await withBody(request, encoding, (body) =>
    readParts(request, body, async (filename, content) => {
      const named = path ?? filename;
      if (named === undefined || named === '') {
        throw new WrennError('invalid_request', { problem: 'a part has no file name, and there is no path parameter' });
      }
      checkUnique(seen, resolveUserPath(named, account, state.defaultWorkdir));
      written.push(await write(named, content));
    }),
  );
  return written;
}

function describeWritten(path: string): WrittenFile {
  const metadata = readMetadata(path);
  return { path, name: basename(path), type: 'file', ...(Object.keys(metadata).length > 0 ? { metadata } : {}) };
}

function checkUnique(seen: Set<string>, path: string): void {
  if (seen.has(path)) {
    throw new WrennError('invalid_request', {
      problem: `the request holds several files for ${path}; the first is written`,
    });
  }
  seen.add(path);
}

/**
 * Gives the decoded body to a function. The request itself is never destroyed, so that an answer can still be sent when
 * the function fails early.
 */
async function withBody<T>(
  request: IncomingMessage,
  encoding: 'gzip' | 'identity',
  use: (body: Readable) => Promise<T>,
): Promise<T> {
  if (encoding === 'identity') return await use(request);
  const gunzip = createGunzip();
  const stopWatching = finished(request, { writable: false }, (error) => {
    if (error) gunzip.destroy(error);
  });
  // Whoever reads it gets its error; the event itself would end the process.
  gunzip.on('error', () => {});
  request.pipe(gunzip);
  try {
    return await use(gunzip);
  } catch (error) {
    throw errnoOf(error)?.startsWith('Z_')
      ? new WrennError('invalid_request', { problem: 'the body is not valid gzip' }, { cause: error })
      : error;
  } finally {
    stopWatching();
    request.unpipe(gunzip);
    gunzip.destroy();
  }
}

/** Without the default of an async iterator, to destroy its stream when it is left early. */
function iterate(stream: Readable): AsyncIterable<Uint8Array> {
  return stream.iterator({ destroyOnReturn: false });
}

/** Hands each part named `file` to a function, one after the other. */
async function readParts(
  request: IncomingMessage,
  body: Readable,
  onFile: (filename: string | undefined, content: AsyncIterable<Uint8Array>) => Promise<void>,
): Promise<void> {
  const parser = await createParser(request);
  let writing: Promise<void> = Promise.resolve();
  const parts: Readable[] = [];
  const parsed = new Promise<void>((resolve, reject) => {
    parser.on('file', (_field: string, content: Readable, filename: string | undefined) => {
      // A part that nobody reads any more must not be an unhandled error, too.
      content.on('error', () => {});
      parts.push(content);
      writing = writing.then(() => onFile(filename, iterate(content)));
      writing.catch(reject);
    });
    parser.on('finish', resolve);
    parser.on('error', (error: unknown) => reject(malformed(error)));
    finished(body, { writable: false }, (error) => {
      if (error) reject(error);
    });
  });
  body.pipe(parser);
  try {
    await parsed;
    await writing;
  } catch (error) {
    body.unpipe(parser);
    parser.destroy();
    // Ends the part that is being written, whose writer then removes what it has of it.
    for (const part of parts) part.destroy(error instanceof Error ? error : undefined);
    await writing.catch(() => {});
    throw error;
  }
}

async function createParser(request: IncomingMessage): Promise<Writable> {
  // Only uploads of forms need it, and loading it costs a start under emulation.
  const { Busboy } = await import('@fastify/busboy');
  try {
    return new Busboy({
      headers: request.headers as BusboyHeaders,
      preservePath: true,
      isPartAFile: (name) => name === 'file',
      limits: { fieldSize: 64 * 1024, fields: 1000 },
    });
  } catch (error) {
    throw malformed(error);
  }
}

function malformed(error: unknown): WrennError {
  if (error instanceof WrennError) return error;
  return new WrennError('invalid_request', { problem: 'the form is malformed or ends too early' }, { cause: error });
}
