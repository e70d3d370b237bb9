import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { hibernate } from './hibernation.ts';
import type { ObjectStore } from './object-store.ts';
import { openObjectStore } from './open-object-store.ts';
import { readObject } from './read-object.ts';
import { s3ServerProblem } from './testing/install-s3-server.ts';
import { type S3Server, startS3Server } from './testing/s3-server.ts';
import { MIB, writeSnapshot } from './testing/sample-files.ts';

const CREDENTIALS = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'a-secret-key' };
const signal = () => AbortSignal.timeout(25_000);
const failure = (problem: string) => ({
  code: 'object_store_failed',
  message: `The object store failed: ${problem}`,
});

const problem = s3ServerProblem();

describe.skipIf(problem)(`an S3 server${problem ? ` (${problem})` : ''}`, () => {
  let server: S3Server;
  beforeAll(async () => {
    server = await startS3Server();
  });
  afterAll(() => server[Symbol.asyncDispose]());

  it('keeps objects of every size, replaces, lists and forgets them', async () => {
    const store = openObjectStore(server.url, server.env);
    const body = randomBytes(20 * MIB);
    await store.put('a/large', Readable.from(pieces(body, 700_001)), body.length, signal());
    await store.put('a/small', Readable.from([Buffer.from('small')]), 5, signal());
    await store.put('a/empty', Readable.from([]), 0, signal());
    await store.put('ab', Buffer.from('one'), 3, signal());
    await store.put('ab', Buffer.from('other'), undefined, signal());
    expect(await keysOf(store.list('a/', signal()))).toEqual(['a/empty', 'a/large', 'a/small']);
    expect(await keysOf(store.list('a', signal()))).toEqual(['a/empty', 'a/large', 'a/small', 'ab']);
    expect(await store.head('a/large', signal())).toEqual({ sizeBytes: body.length });
    expect(await store.head('a/none', signal())).toBeUndefined();
    expect(body.equals(await buffer(await store.get('a/large', undefined, signal())))).toBe(true);
    const range = { start: 8 * MIB - 3, end: 8 * MIB + 5 };
    expect(await buffer(await store.get('a/large', range, signal()))).toEqual(body.subarray(range.start, range.end));
    expect(await buffer(await store.get('ab', undefined, signal()))).toEqual(Buffer.from('other'));
    await store.delete(['a/large', 'a/small', 'a/empty', 'ab', 'a/none'], signal());
    expect(await keysOf(store.list('', signal()))).toEqual([]);
  });

  it('keeps nothing of a body that breaks, or has another size than was said', async () => {
    const store = openObjectStore(server.url, server.env);
    const broken = new Error('the disk failed');
    async function* breaking() {
      yield Buffer.alloc(9 * MIB);
      throw broken;
    }
    await expect(store.put('broken', Readable.from(breaking()), undefined, signal())).rejects.toBe(broken);
    const long = Readable.from(pieces(Buffer.alloc(9 * MIB), MIB));
    await expect(store.put('long', long, 9 * MIB - 1, signal())).rejects.toThrow(TypeError);
    expect(await keysOf(store.list('', signal()))).toEqual([]);
  });

  it('is said to refuse wrong credentials, and to lack a bucket', async () => {
    const wrong = openObjectStore(server.url, { ...server.env, AWS_SECRET_ACCESS_KEY: 'wrong' });
    await expect(wrong.head('a', signal())).rejects.toMatchObject(failure('it refused the credentials'));
    await expect(wrong.put('a', Buffer.from('a'), 1, signal())).rejects.toMatchObject(
      failure('it refused the credentials'),
    );
    const nowhere = openObjectStore(server.url.replace('hibernated', 'other'), server.env);
    await expect(nowhere.put('a', Buffer.from('a'), 1, signal())).rejects.toMatchObject(
      failure('its bucket does not exist'),
    );
  });

  it('fails a hibernation in an orderly way when it dies in the middle of an upload', async () => {
    await using doomed = await startS3Server();
    const store = openObjectStore(doomed.url, doomed.env);
    const work = await mkdtemp(join(tmpdir(), 'wrenn-doomed-'));
    onTestFinished(() => rm(work, { recursive: true, force: true }));
    const files = await writeSnapshot(work);
    const dying: typeof store = {
      head: store.head.bind(store),
      get: store.get.bind(store),
      delete: store.delete.bind(store),
      list: store.list.bind(store),
      put: (key, body, size, putSignal) =>
        store.put(key, body instanceof Uint8Array ? body : Readable.from(killingAfter(body, 9 * MIB)), size, putSignal),
    };
    async function* killingAfter(body: Readable, bytes: number) {
      let sent = 0;
      for await (const part of body as AsyncIterable<Buffer>) {
        yield part;
        if (sent < bytes && sent + part.length >= bytes) await doomed.kill();
        sent += part.length;
      }
    }
    const hibernating = hibernate(dying, { key: 'cl-a/1', manifest: Buffer.from('{}'), files }, signal());
    await expect(hibernating).rejects.toMatchObject(failure('it cannot be reached'));
  });
});

describe('a server that misbehaves', () => {
  it('cannot be reached', async () => {
    const store = storeAt(1);
    await expect(store.head('a', signal())).rejects.toMatchObject(failure('it cannot be reached'));
  });

  it('is not asked without credentials', async () => {
    vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
    for (const name of ['AWS_CONFIG_FILE', 'AWS_SHARED_CREDENTIALS_FILE']) vi.stubEnv(name, '/nowhere');
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_PROFILE']) vi.stubEnv(name, undefined);
    onTestFinished(() => {
      vi.unstubAllEnvs();
    });
    const store = openObjectStore('s3://bucket?endpoint=http://127.0.0.1:1');
    await expect(store.head('a', signal())).rejects.toMatchObject(failure('no credentials are set for it'));
  });

  it('hangs', async () => {
    const sockets: Socket[] = [];
    const server = createTcpServer((socket) => sockets.push(socket)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const store = storeAt((server.address() as AddressInfo).port, 'request_timeout_ms=100');
    await expect(store.head('a', signal())).rejects.toMatchObject(failure('it did not answer in time'));
    expect(sockets.length).toBeGreaterThan(2);
    const reason = new Error('the caller left');
    const controller = new AbortController();
    const patient = storeAt((server.address() as AddressInfo).port);
    const leaving = patient.put('a', Buffer.from('a'), 1, controller.signal);
    controller.abort(reason);
    await expect(leaving).rejects.toBe(reason);
  });

  it('has put what it got of an aborted put before the put ends, or is not waited for', async () => {
    const done: string[] = [];
    let answers = true;
    let abort = () => {};
    const port = await listen(async ({ method = '' }, response) => {
      if (method === 'PUT') {
        abort();
        if (!answers) return;
        await delay(100);
      }
      done.push(method);
      response.writeHead(200, { 'content-length': 0, etag: '"e"' }).end();
    });
    const putAborted = async (store: ObjectStore) => {
      const controller = new AbortController();
      const reason = new Error('the caller left');
      abort = () => controller.abort(reason);
      await expect(store.put('a', Buffer.from('a'), 1, controller.signal)).rejects.toBe(reason);
      await store.delete(['a'], signal());
    };
    await putAborted(storeAt(port));
    expect(done).toEqual(['PUT', 'DELETE']);
    answers = false;
    await putAborted(storeAt(port, 'request_timeout_ms=1000'));
    expect(done).toEqual(['PUT', 'DELETE', 'DELETE']);
  });

  it('fails, for a moment or for good', async () => {
    let failures = 2;
    const port = await listen((_request, response) => {
      response.writeHead(failures-- > 0 ? 500 : 200, { 'content-length': 0, etag: '"e"' }).end();
    });
    await storeAt(port).put('a', Buffer.from('a'), 1, signal());
    expect(failures).toBe(-1);
    failures = Number.POSITIVE_INFINITY;
    await expect(storeAt(port).head('a', signal())).rejects.toMatchObject(failure('it answered with status 500'));
  });

  it('is full', async () => {
    const port = await listen((_request, response) => {
      response
        .writeHead(507, { 'content-type': 'application/xml' })
        .end('<Error><Code>InsufficientStorage</Code></Error>');
    });
    const put = storeAt(port).put('a', Buffer.from('a'), 1, signal());
    await expect(put).rejects.toMatchObject(failure('it is full'));
  });

  it('is no S3 server', async () => {
    const port = await listen((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html><p>Welcome!');
    });
    const body = Readable.from(pieces(Buffer.alloc(9 * MIB), MIB));
    await expect(storeAt(port).put('a', body, undefined, signal())).rejects.toMatchObject(
      failure('it gave an answer that Wrenn does not understand'),
    );
  });

  it('breaks off its answers: now and then, or always', async () => {
    let broken = 2;
    let answers = 0;
    const port = await listen((_request, response) => {
      answers += 1;
      response.writeHead(206, { 'content-length': 100 });
      if (broken-- > 0) response.write(Buffer.alloc(10), () => response.destroy());
      else response.end(Buffer.alloc(100, 7));
    });
    const range = { start: 0, end: 100 };
    expect(await readObject(storeAt(port), 'a', range, signal())).toEqual(Buffer.alloc(100, 7));
    expect(answers).toBe(3);
    broken = Number.POSITIVE_INFINITY;
    await expect(readObject(storeAt(port), 'a', range, signal())).rejects.toMatchObject(
      failure('it does not give back all that it was given'),
    );
  });

  it('does not know of ranges', async () => {
    const port = await listen((_request, response) => response.writeHead(200).end(Buffer.alloc(500)));
    await expect(readObject(storeAt(port), 'a', { start: 0, end: 100 }, signal())).rejects.toMatchObject(
      failure('it does not give back all that it was given'),
    );
  });
});

function storeAt(port: number, parameters = '') {
  return openObjectStore(`s3://bucket?endpoint=http://127.0.0.1:${port}&${parameters}`, CREDENTIALS);
}

async function listen(answer: RequestListener): Promise<number> {
  const server = createServer((request, response) => {
    request.resume();
    request.once('end', () => answer(request, response));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

function* pieces(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function keysOf(keys: AsyncIterable<string>): Promise<string[]> {
  const found: string[] = [];
  for await (const key of keys) found.push(key);
  return found.sort();
}
