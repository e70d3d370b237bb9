import { once } from 'node:events';
import { request } from 'node:http';
import { Readable } from 'node:stream';
import type { Client } from '@connectrpc/connect';
import type { Process } from '@wrenn/protocol/gen/process/process_pb';
import { until } from '@wrenn/testing/until';
import type { Platform } from '../tests/e2e/support/platform.ts';
import { type FloorVm, runTrue } from './floor-vm.ts';
import { type Measurement, summarise, timed } from './measurement.ts';
import { exec } from './platform-calls.ts';

const EXECS = 100;
const WARM_UP_CALLS = 5;
const COPIES = 3;
const FILE_BYTES = 100 * 1024 * 1024;
const COPY_PORT = 18_080;

/** A command through the API, beside the same command straight to envd. */
export async function measureExec(
  platform: Platform,
  id: string,
  envd: Client<typeof Process>,
  count: (n: number) => number,
): Promise<Measurement> {
  const straight = () => runTrue(envd);
  const samples: number[] = [];
  const floorSamples: number[] = [];
  // The first calls of a VM open connections and have their code translated under emulation.
  for (let i = 0; i < WARM_UP_CALLS; i++) {
    await exec(platform, id, 'true');
    await straight();
  }
  for (let i = 0; i < count(EXECS); i++) {
    floorSamples.push(await timed(straight));
    samples.push(await timed(() => exec(platform, id, 'true')));
  }
  const aim = { of: 'above floor', sign: '≤', limit: 5 } as const;
  return summarise('exec round trip', 'ms', samples, { floor: floorSamples, aim });
}

/** 100 MB through the API's files, beside a plain HTTP copy into and out of a guest. */
export async function measureFiles(
  platform: Platform,
  id: string,
  floor: FloorVm,
  envd: Client<typeof Process>,
  count: (n: number) => number,
): Promise<Measurement[]> {
  const stop = await startCopyServer(floor, envd);
  const plainUrl = new URL(`http://${new URL(floor.guestUrl).hostname}:${COPY_PORT}/file`);
  const up: number[] = [];
  const down: number[] = [];
  const floorUp: number[] = [];
  const floorDown: number[] = [];
  try {
    for (let i = 0; i < count(COPIES); i++) {
      floorUp.push(await rate(() => plainUpload(plainUrl)));
      up.push(await rate(() => upload(platform, id)));
      floorDown.push(await rate(() => plainDownload(plainUrl)));
      down.push(await rate(() => download(platform, id)));
    }
  } finally {
    stop.abort();
  }
  const aim = { of: 'ratio', sign: '≥', limit: 0.6 } as const;
  return [
    summarise('100 MB file up', 'MB/s', up, { floor: floorUp, aim }),
    summarise('100 MB file down', 'MB/s', down, { floor: floorDown, aim }),
  ];
}

async function rate(work: () => Promise<void>): Promise<number> {
  return FILE_BYTES / 1e6 / ((await timed(work)) / 1000);
}

/** Random enough that nothing on the way can shrink it, and repeatable. */
const BLOCK = Buffer.from(Uint8Array.from({ length: 65_536 }, (_, i) => (i * 2_654_435_761) >>> 24));

function* fileBlocks(): Generator<Buffer> {
  for (let sent = 0; sent < FILE_BYTES; sent += BLOCK.length) yield BLOCK;
}

async function send(url: URL, method: string, headers: Record<string, string>, body: Iterable<Buffer>): Promise<void> {
  const outgoing = request(url, { method, headers });
  Readable.from(body).pipe(outgoing);
  const [response] = await once(outgoing, 'response');
  await consume(response);
  if (response.statusCode !== 204) throw new Error(`${method} ${url} answered ${response.statusCode}`);
}

async function consume(stream: AsyncIterable<Buffer>): Promise<number> {
  let bytes = 0;
  for await (const chunk of stream) bytes += chunk.length;
  return bytes;
}

function plainUpload(url: URL): Promise<void> {
  return send(url, 'PUT', { 'content-length': String(FILE_BYTES) }, fileBlocks());
}

function upload(platform: Platform, id: string): Promise<void> {
  const boundary = 'wrenn-bench-boundary';
  const field = (head: string) => Buffer.from(`--${boundary}\r\ncontent-disposition: form-data; ${head}`);
  const parts = [
    field('name="path"\r\n\r\n/tmp/file\r\n'),
    field('name="file"; filename="file"\r\ncontent-type: application/octet-stream\r\n\r\n'),
  ];
  function* body() {
    yield* parts;
    yield* fileBlocks();
    yield Buffer.from(`\r\n--${boundary}--\r\n`);
  }
  return send(
    new URL(`${platform.baseUrl}/v1/capsules/${id}/files/stream/write`),
    'POST',
    { 'x-api-key': platform.apiKey, 'content-type': `multipart/form-data; boundary=${boundary}` },
    body(),
  );
}

async function expectWhole(outgoing: ReturnType<typeof request>): Promise<void> {
  const [response] = await once(outgoing, 'response');
  const bytes = await consume(response);
  if (response.statusCode !== 200 || bytes !== FILE_BYTES) {
    throw new Error(`a download answered ${response.statusCode} with ${bytes} bytes`);
  }
}

function plainDownload(url: URL): Promise<void> {
  return expectWhole(request(url).end());
}

function download(platform: Platform, id: string): Promise<void> {
  const headers = { 'x-api-key': platform.apiKey, 'content-type': 'application/json' };
  const url = `${platform.baseUrl}/v1/capsules/${id}/files/stream/read`;
  return expectWhole(request(url, { method: 'POST', headers }).end(JSON.stringify({ path: '/tmp/file' })));
}

const COPY_SERVER = `
const { createReadStream, createWriteStream } = require('node:fs');
require('node:http').createServer((q, s) => {
  if (q.method === 'PUT') q.pipe(createWriteStream('/tmp/plain')).on('finish', () => s.writeHead(204).end());
  else if (q.url === '/file') createReadStream('/tmp/plain', { highWaterMark: 65536 }).pipe(s);
  else s.end();
}).listen(${COPY_PORT});
`;

/** The plainest HTTP server that keeps a file, in the guest. */
async function startCopyServer(floor: FloorVm, envd: Client<typeof Process>): Promise<AbortController> {
  const stop = new AbortController();
  const started = Promise.withResolvers<void>();
  void (async () => {
    for await (const { event } of envd.start({ process: { cmd: 'node', args: ['-e', COPY_SERVER] } }, stop)) {
      if (event?.event.case === 'start') started.resolve();
      if (event?.event.case === 'end') throw new Error(`the copy server ended: ${event.event.value.status}`);
    }
  })().catch((error: unknown) => {
    if (!stop.signal.aborted) started.reject(error);
  });
  await started.promise;
  const url = `http://${new URL(floor.guestUrl).hostname}:${COPY_PORT}/`;
  await until('the copy server answers', 60_000, async () => (await fetch(url).catch(() => undefined))?.ok === true);
  return stop;
}
