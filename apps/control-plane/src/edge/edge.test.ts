import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { TestPlatform } from '../testing/test-platform.ts';

/** A server in the guest: it echoes requests as JSON, bodies as they come, and what is sent over an upgrade. */
const GUEST_SERVER = `
const http = require('node:http');
const { createHash } = require('node:crypto');
const server = http.createServer((request, response) => {
  if (request.url === '/echo') { response.writeHead(200); response.flushHeaders(); request.pipe(response); return; }
  if (request.url === '/endless') { response.writeHead(200); const block = Buffer.alloc(65536);
    const more = () => { while (response.write(block)); }; response.on('drain', more); more(); return; }
  if (request.url === '/cut') { response.writeHead(200, { 'content-length': 100 }); response.write('part'); setTimeout(() => response.destroy(), 50); return; }
  if (request.url === '/silent') { request.socket.destroy(); return; }
  let length = 0;
  request.on('data', (chunk) => { length += chunk.length; });
  request.on('end', () => {
    response.writeHead(207, 'Odd Status', { 'x-guest': 'yes', connection: 'keep-alive, x-hop', 'x-hop': 'hidden', 'set-cookie': ['a=1', 'b=2'] });
    response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers, length }));
  });
});
server.on('upgrade', (request, socket) => {
  if (request.url === '/refused') { socket.end('HTTP/1.1 418 Teapot\\r\\ncontent-length: 2\\r\\n\\r\\nno'); return; }
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: ' + request.headers.upgrade + '\\r\\nX-Seen-Key: ' + (request.headers['x-api-key'] ?? 'none') +
    (request.headers['sec-websocket-key'] ? '\\r\\nSec-WebSocket-Accept: ' + createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64') : '') + '\\r\\n\\r\\n');
  if (!request.headers['sec-websocket-key']) socket.pipe(socket);
  // A masked text frame of the client comes back unmasked.
  else socket.on('data', (frame) => { const length = frame[1] & 127; if ((frame[0] & 15) === 8) return socket.end(Buffer.from([0x88, 0]));
    const mask = frame.subarray(2, 6); const data = frame.subarray(6, 6 + length).map((byte, i) => byte ^ mask[i % 4]);
    socket.write(Buffer.concat([Buffer.from([0x81, length]), data])); });
});
server.listen(Number(process.argv[1]), process.argv[2], () => console.log('listening'));
`;

let platform: TestPlatform;
let id: string;
const PORT = 8123;

beforeAll(async () => {
  platform = await TestPlatform.start();
  id = await createServing();
});
afterAll(() => platform[Symbol.asyncDispose]());

/** A capsule in which a program serves a port. */
async function createServing(json: object = {}): Promise<string> {
  const created = await platform.createCapsule(json);
  const { body } = await platform.call(`/v1/capsules/${created}`);
  const socket = await platform.connect(`/v1/capsules/${created}/exec/stream`);
  const args = ['-e', GUEST_SERVER, String(PORT), body.host_ip];
  socket.send({ type: 'start', cmd: process.execPath, args, tag: 'server' });
  await socket.takeUntil(({ type }) => type === 'stdout');
  socket.socket.close();
  return created;
}

interface Asked {
  readonly path?: string;
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | undefined;
  readonly capsule?: string;
  readonly port?: number | string;
}

/** A request to a port of a capsule by the name of the host. */
function open({ path = '/', method = 'GET', headers = {}, capsule = id, port = PORT }: Asked) {
  const host = `${port}-${capsule}.capsules.example`;
  const url = new URL(platform.baseUrl);
  return request({
    port: url.port,
    path,
    method,
    headers: { host, 'x-api-key': platform.apiKey, ...headers },
  });
}

async function ask(asked: Asked = {}) {
  const outgoing = open(asked);
  outgoing.end(asked.body);
  const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
  const content = await text(answer);
  return { status: answer.statusCode, answer, body: content.startsWith('{') ? JSON.parse(content) : content };
}

describe('a port of a capsule', () => {
  it('gets requests with any method, path and body, and answers as it likes', async () => {
    const { status, answer, body } = await ask({ method: 'PROPFIND', path: '/a%20b?c=d', body: 'hello' });
    expect({ status, body }).toMatchObject({ status: 207 });
    expect(answer.statusMessage).toBe('Odd Status');
    expect(answer.headers).toMatchObject({ 'x-guest': 'yes', 'set-cookie': ['a=1', 'b=2'] });
    expect(answer.headers['x-hop']).toBeUndefined();
    expect(body).toMatchObject({ method: 'PROPFIND', url: '/a%20b?c=d', length: 5 });
  });

  it('is found by headers, too, on any name', async () => {
    const answer = await platform.fetch('/by/headers', {
      headers: { 'E2b-Sandbox-Id': id, 'E2b-Sandbox-Port': String(PORT) },
    });
    const { headers } = (await answer.json()) as { headers: Record<string, string> };
    expect(Object.keys(headers).filter((name) => name.startsWith('e2b-'))).toEqual([]);
  });

  it('never sees credentials of the platform, and all others', async () => {
    const key = platform.apiKey;
    const asBearer = { 'x-api-key': 'of the program', authorization: `Bearer ${key.replace('wrn_', 'e2b_')}` };
    expect((await ask({ headers: asBearer })).body.headers).toMatchObject({ 'x-api-key': 'of the program' });
    for (const headers of [asBearer, { authorization: 'Bearer of-the-program' }, {}]) {
      const { body } = await ask({ headers });
      expect(JSON.stringify(body)).not.toContain(key.slice(4));
    }
    const { body } = await ask({ headers: { authorization: 'Bearer of-the-program' } });
    expect(body.headers.authorization).toBe('Bearer of-the-program');
  });

  it('learns where a request came from, and nothing of its connection', async () => {
    const headers = { 'x-forwarded-for': '192.0.2.1', connection: 'x-mine', 'x-mine': 'hop', 'x-other': 'end' };
    const { body } = await ask({ headers });
    expect(body.headers).toMatchObject({
      host: `${PORT}-${id}.capsules.example`,
      'x-forwarded-for': expect.stringMatching(/^192\.0\.2\.1, .*127\.0\.0\.1$/),
      'x-forwarded-host': `${PORT}-${id}.capsules.example`,
      'x-forwarded-proto': 'http',
      'x-other': 'end',
    });
    expect(body.headers['x-mine']).toBeUndefined();
  });

  it('streams both ways at once', async () => {
    const outgoing = open({ path: '/echo', method: 'POST' });
    outgoing.flushHeaders();
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    for (const word of ['one', 'two', 'three']) {
      outgoing.write(word);
      expect(String((await once(answer, 'data'))[0])).toBe(word);
    }
    outgoing.end();
    await once(answer, 'end');
  });

  it('waits for a client that does not read', async () => {
    const outgoing = open({ path: '/endless' });
    outgoing.end();
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    answer.pause();
    const before = process.memoryUsage().rss;
    await delay(1000);
    expect(process.memoryUsage().rss - before).toBeLessThan(96 * 1024 * 1024);
    outgoing.destroy();
  });

  it('shows as cut off what is cut off', async () => {
    const outgoing = open({ path: '/cut' });
    outgoing.end();
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    await expect(text(answer)).rejects.toThrow();
  });

  it('can speak WebSocket', async () => {
    const url = `${platform.baseUrl.replace('http', 'ws')}/chat`;
    const headers = { host: `${PORT}-${id}.capsules.example`, authorization: `Bearer ${platform.apiKey}` };
    const socket = new WebSocket(url, { headers });
    const upgraded = once(socket, 'upgrade');
    await once(socket, 'open');
    expect((await upgraded)[0].headers['x-seen-key']).toBe('none');
    socket.send('over and back');
    expect(String((await once(socket, 'message'))[0])).toBe('over and back');
    socket.close();
    await once(socket, 'close');
  });

  it('may refuse an upgrade', async () => {
    const outgoing = open({ path: '/refused', headers: { connection: 'Upgrade', upgrade: 'odd' } });
    outgoing.end();
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    expect([answer.statusCode, await text(answer)]).toEqual([418, 'no']);
  });

  it('can speak whatever it upgrades to, many connections at once', async () => {
    await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const outgoing = open({ headers: { connection: 'Upgrade', upgrade: 'odd' } });
        outgoing.end();
        const [, socket] = await once(outgoing, 'upgrade');
        socket.write(`number ${i}`);
        expect(String((await once(socket, 'data'))[0])).toBe(`number ${i}`);
        socket.destroy();
      }),
    );
  });
});

describe('what is refused', () => {
  const noKey = { 'x-api-key': '' };

  it.each([
    ['without a key', { headers: noKey }, 401, 'unauthorized'],
    ['with a wrong key', { headers: { 'x-api-key': `wrn_${'0'.repeat(40)}` } }, 401, 'unauthorized'],
    ['the guest agent', { port: 49_983 }, 403, 'forbidden'],
    ['no port', { port: 0 }, 400, 'invalid_request'],
    ['a port beyond all', { port: 65_536 }, 400, 'invalid_request'],
    ['no such capsule', { capsule: 'cl-0000000000000000000000000' }, 404, 'capsule_not_found'],
    ['a port that nobody serves', { port: 8124 }, 502, 'port_closed'],
    ['an answer that never came', { path: '/silent' }, 502, 'guest_unreachable'],
  ])('%s', async (_what, asked: Asked, status, reason) => {
    const refused = await ask(asked);
    expect(refused).toMatchObject({ status, body: { error: { reason, request_id: expect.any(String) } } });
    expect(refused.answer.headers['content-type']).toBe('application/json');
  });

  it('an upgrade without a key', async () => {
    const outgoing = open({ headers: { ...noKey, connection: 'Upgrade', upgrade: 'websocket' } });
    outgoing.end();
    const [answer] = (await once(outgoing, 'response')) as [IncomingMessage];
    expect(answer.statusCode).toBe(401);
    expect(JSON.parse(await text(answer))).toMatchObject({ error: { reason: 'unauthorized' } });
  });

  it('another address than that of the guest', async () => {
    for (const path of ['http://127.0.0.1:1/', '//127.0.0.1:1/', '/../..//x']) {
      const { body } = await ask({ path });
      expect(body.url).toBe(path);
    }
  });

  it('a capsule that sleeps and may not wake by itself; one that may is woken', async () => {
    const asleep = await createServing();
    await platform.call(`/v1/capsules/${asleep}/pause`, { method: 'POST' });
    expect(await ask({ capsule: asleep })).toMatchObject({
      status: 409,
      body: { error: { reason: 'invalid_state', details: { status: 'paused' } } },
    });
    await platform.call(`/v1/capsules/${asleep}`, { method: 'PATCH', json: { auto_resume: true } });
    const answers = await Promise.all(Array.from({ length: 5 }, () => ask({ capsule: asleep })));
    expect(answers.map(({ status, body }) => [status, body.error])).toEqual(Array(5).fill([207, undefined]));
    expect((await platform.call(`/v1/capsules/${asleep}`)).body).toMatchObject({ status: 'running', generation: 1 });
  });

  it('a host that is silent', async () => {
    await platform.host.goSilent();
    const refused = await ask();
    await platform.host.listen();
    expect(refused).toMatchObject({ status: 503, body: { error: { reason: 'host_unavailable' } } });
    await until('it is back', async () => (await ask()).status === 207);
  });
});

it('counts bytes as use of the capsule', async () => {
  const lastActive = async () => Date.parse((await platform.call(`/v1/capsules/${id}`)).body.last_active_at);
  const outgoing = open({ headers: { connection: 'Upgrade', upgrade: 'odd' } });
  outgoing.end();
  const [, socket] = await once(outgoing, 'upgrade');
  const before = Date.now();
  await until('bytes were noted', async () => {
    socket.write('x');
    return (await lastActive()) > before;
  });
  expect((await platform.call(`/v1/capsules/${id}`)).body.awake?.busy ?? false).toBe(false);
  socket.destroy();
});
