import { type ClientHttp2Stream, constants } from 'node:http2';
import { PassThrough } from 'node:stream';

/**
 * Lets a response be iterated over however late. From 24.20 on, Node takes one for cut off that arrived whole before
 * anybody read it (https://github.com/nodejs/node/issues/65677): here it is read from the start.
 */
export function readFromStart(stream: ClientHttp2Stream): ClientHttp2Stream {
  const body = stream.pipe(new PassThrough());
  stream.once('error', (error) => body.destroy(error));
  stream.once('close', () => {
    if (!body.writableEnded) body.destroy(new Error('the response was cut off'));
  });
  // Who stops in the middle wants no more of it.
  body.once('close', () => stream.close(constants.NGHTTP2_CANCEL));
  // A response that nobody reads has no other listener.
  body.on('error', () => undefined);
  return Object.assign(stream, { [Symbol.asyncIterator]: () => body[Symbol.asyncIterator]() });
}
