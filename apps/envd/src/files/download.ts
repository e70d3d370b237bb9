import { constants, createReadStream, type Stats } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { basename, extname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip, constants as zlib } from 'node:zlib';
import { WrennError } from '@wrenn/protocol/errors';
import { fileError } from '../errors.ts';
import type { GuestState } from '../guest-state.ts';
import { resolveUserPath } from '../users/paths.ts';
import { parseRange } from './byte-range.ts';
import { chooseEncoding } from './content-encoding.ts';
import { contentType } from './content-type.ts';
import { authorizeFileRequest } from './file-request.ts';

const READ_BYTES = 256 * 1024;
const NON_BLOCKING_READ = constants.O_RDONLY | constants.O_NONBLOCK;

/** GET and HEAD /files: a file, or a part of it, in constant memory. */
export async function download(
  request: IncomingMessage,
  response: ServerResponse,
  query: URLSearchParams,
  state: GuestState,
): Promise<void> {
  const { path: named, account } = authorizeFileRequest(request, query, 'read', state);
  const path = resolveUserPath(named ?? '', account, state.defaultWorkdir);
  const file = await openRegular(path);
  try {
    await send(request, response, path, file, await file.stat());
  } finally {
    await file.close();
  }
}

async function openRegular(path: string): Promise<FileHandle> {
  let file: FileHandle;
  try {
    // Non-blocking, because opening a FIFO would wait for its writer.
    file = await open(path, NON_BLOCKING_READ);
  } catch (error) {
    throw fileError(error, path, 'read');
  }
  const stat = await file.stat();
  if (stat.isFile()) return file;
  await file.close();
  const actual = stat.isDirectory() ? 'a directory' : 'no regular file';
  throw new WrennError('wrong_file_type', { path, actual, expected: 'a file' });
}

async function send(
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
  file: FileHandle,
  stat: Stats,
): Promise<void> {
  const { headers } = request;
  const etag = `"${stat.ino.toString(36)}-${stat.size.toString(36)}-${Math.round(stat.mtimeMs).toString(36)}"`;
  const conditional = headers.range ?? headers['if-none-match'] ?? headers['if-modified-since'];
  const encoding = chooseEncoding(headers['accept-encoding'], conditional === undefined);
  response.setHeader('Vary', 'Accept-Encoding');
  response.setHeader('Last-Modified', stat.mtime.toUTCString());
  response.setHeader('ETag', etag);
  if (isUnchanged(request, etag, stat)) {
    response.writeHead(304).end();
    return;
  }
  response.setHeader('Content-Type', contentType(extname(path)));
  response.setHeader('Content-Disposition', contentDisposition(basename(path)));

  if (encoding === 'gzip') {
    response.setHeader('Content-Encoding', 'gzip');
    await stream(request, response, [createSource(file), createGzip({ level: zlib.Z_BEST_SPEED })]);
    return;
  }
  response.setHeader('Accept-Ranges', 'bytes');
  // Files of /proc say that they have no bytes, and have some.
  if (stat.size === 0) {
    await stream(request, response, [createSource(file)]);
    return;
  }
  const range = rangeIsCurrent(request, etag, stat) ? rangeOf(request, response, stat.size) : undefined;
  const { start, end } = range ?? { start: 0, end: stat.size - 1 };
  response.setHeader('Content-Length', end - start + 1);
  if (range) {
    response.statusCode = 206;
    response.setHeader('Content-Range', `bytes ${start}-${end}/${stat.size}`);
  }
  await stream(request, response, [createSource(file, start, end)]);
}

function rangeOf(request: IncomingMessage, response: ServerResponse, size: number) {
  try {
    return parseRange(request.headers.range, size);
  } catch (error) {
    response.setHeader('Content-Range', `bytes */${size}`);
    throw error;
  }
}

function createSource(file: FileHandle, start = 0, end = Number.POSITIVE_INFINITY): NodeJS.ReadableStream {
  return createReadStream('', { fd: file, start, end, highWaterMark: READ_BYTES, autoClose: false });
}

async function stream(
  request: IncomingMessage,
  response: ServerResponse,
  parts: (NodeJS.ReadableStream | NodeJS.ReadWriteStream)[],
): Promise<void> {
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  await pipeline([...parts, response]);
}

function isUnchanged({ headers }: IncomingMessage, etag: string, stat: Stats): boolean {
  const noneMatch = headers['if-none-match'];
  if (noneMatch !== undefined) return noneMatch.split(',').some((tag) => ['*', etag].includes(tag.trim()));
  const since = Date.parse(headers['if-modified-since'] ?? '');
  return Number.isFinite(since) && Math.floor(stat.mtimeMs / 1000) * 1000 <= since;
}

/** If-Range: a part is only good for somebody who holds the rest of the same file. */
function rangeIsCurrent({ headers }: IncomingMessage, etag: string, stat: Stats): boolean {
  const condition = headers['if-range'];
  if (typeof condition !== 'string') return true;
  if (condition.startsWith('"')) return condition === etag;
  return Date.parse(condition) === Math.floor(stat.mtimeMs / 1000) * 1000;
}

/** RFC 6266: a plain name for old clients, and the name as it is. */
function contentDisposition(name: string): string {
  const plain = name.replaceAll(/[^\x20-\x7e]|["\\]/g, '_');
  const exact = encodeURIComponent(name).replaceAll(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16)}`,
  );
  return `inline; filename="${plain}"${plain === name ? '' : `; filename*=UTF-8''${exact}`}`;
}
