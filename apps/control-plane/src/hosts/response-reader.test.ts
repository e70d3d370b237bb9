import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  createServer,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { until } from '@wrenn/testing/until';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readFromStart } from './response-reader.ts';

let answer: (stream: ServerHttp2Stream) => void;
let session: ClientHttp2Session;
let stack: AsyncDisposableStack;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  const server = createServer().on('stream', (stream) => {
    stream.on('error', () => undefined);
    answer(stream);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stack.defer(() => void server.close());
  session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  session.on('error', () => undefined);
  stack.defer(() => session.destroy());
});
afterEach(() => stack.disposeAsync());

async function request(): Promise<ClientHttp2Stream> {
  const stream = readFromStart(session.request({ ':path': '/' }));
  await once(stream, 'response');
  return stream;
}

it('gives a response whole that had ended before it was read', async () => {
  answer = (stream) => {
    stream.respond({ ':status': 200 });
    stream.end('all of it');
  };
  const stream = await request();
  await until('it has ended', () => stream.closed);
  expect(await text(stream)).toBe('all of it');
});

it('gives one that is longer than what is kept of it', async () => {
  const chunk = 'x'.repeat(100_000);
  answer = (stream) => {
    stream.respond({ ':status': 200 });
    for (let i = 0; i < 10; i++) stream.write(chunk);
    stream.end();
  };
  expect(await text(await request())).toHaveLength(10 * chunk.length);
});

it('takes none for whole that was cut off', async () => {
  answer = (stream) => {
    stream.respond({ ':status': 200 });
    stream.write('the first half', () => stream.session?.destroy(new Error('it broke')));
  };
  const stream = await request();
  await expect(text(stream)).rejects.toThrow();
});

it('ends the stream of a response that is no longer wanted', async () => {
  let isClosed = false;
  answer = (stream) => {
    stream.once('close', () => {
      isClosed = true;
    });
    stream.respond({ ':status': 200 });
    stream.write('the first half');
  };
  for await (const _chunk of await request()) break;
  await until('the server is told', () => isClosed);
});
