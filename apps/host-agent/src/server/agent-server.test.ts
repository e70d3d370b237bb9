import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2, constants } from 'node:http2';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex, Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { issueAuthority, issueLeaf, type KeyPair } from '@wrenn/pki/issue';
import { ensureLocalPki, type LocalPki } from '@wrenn/pki/local-pki';
import { fromConnectError } from '@wrenn/protocol/connect-errors';
import { WrennError } from '@wrenn/protocol/errors';
import { HostService } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { until } from '@wrenn/testing/until';
import pino from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { AgentServer } from './agent-server.ts';

let dir: string;
let pki: LocalPki;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-server-'));
  pki = await ensureLocalPki(dir);
});
afterAll(() => rm(dir, { recursive: true }));

let server: AgentServer;
let guest: Server;
/** Connections that the guest took. */
let accepted: Socket[];
let ended: AbortController;
let release: PromiseWithResolvers<void>;
let finished: string[];

beforeEach(async () => {
  accepted = [];
  finished = [];
  release = Promise.withResolvers();
  ended = new AbortController();
  guest = createServer({ allowHalfOpen: true }, (socket) => {
    accepted.push(socket);
    socket.on('error', () => undefined);
  });
  guest.listen(0, '127.0.0.1');
  await once(guest, 'listening');
  server = await AgentServer.listen({
    address: { host: '127.0.0.1', port: 0 },
    pki,
    log: pino({ level: 'silent' }),
    findGuest: (id) => {
      if (id === 'cl-none') throw new WrennError('capsule_not_found', { id });
      if (id === 'cl-dead') throw new WrennError('invalid_state', { id, status: 'failed', needed: 'running' });
      return { hostIp: '127.0.0.1', ended: ended.signal };
    },
    service: {
      getVm: ({ id }) => {
        if (id === 'defect') throw new Error('/root/secret');
        throw new WrennError('capsule_not_found', { id });
      },
      hello: unused,
      createVm: unused,
      listVms: unused,
      watchVms: unused,
      readStats: unused,
      getVmConsole: unused,
      publishTemplate: unused,
      publishSnapshot: unused,
      pauseVm: unused,
      resumeVm: unused,
      forkVm: unused,
      snapshotVm: unused,
      deleteSnapshot: unused,
      verifyVm: unused,
      hibernateVm: unused,
      forgetVm: unused,
      deleteHibernated: unused,
      destroyVm: async () => {
        await release.promise;
        finished.push('destroyVm');
        return {};
      },
    },
  });
});

const sessions: ClientHttp2Session[] = [];
afterEach(async () => {
  release.resolve();
  for (const session of sessions.splice(0)) session.destroy();
  await server[Symbol.asyncDispose]();
  for (const socket of accepted) socket.destroy();
  guest.close();
});

function unused(): never {
  throw new Error('not part of these tests');
}

function guestPort(): number {
  return (guest.address() as AddressInfo).port;
}

function openSession(pair: KeyPair | undefined = pki.controlPlane): ClientHttp2Session {
  const session = connectHttp2(`https://127.0.0.1:${server.port}`, {
    ca: pki.caCertPem,
    ...(pair ? { cert: pair.certPem, key: pair.keyPem } : {}),
    settings: { initialWindowSize: 4 * 1024 * 1024, maxFrameSize: 1024 * 1024 },
  });
  session.on('error', () => undefined);
  sessions.push(session);
  return session;
}

function openStream(session: ClientHttp2Session, authority: string): ClientHttp2Stream {
  const stream = session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false });
  stream.on('error', () => undefined);
  return stream;
}

async function statusOf(stream: ClientHttp2Stream): Promise<number | undefined> {
  const [headers] = (await once(stream, 'response')) as [{ ':status'?: number }];
  return headers[':status'];
}

/** A tunnel to the guest, and the guest's end of it. */
async function tunnel(session = openSession()): Promise<{ stream: ClientHttp2Stream; socket: Socket }> {
  const before = accepted.length;
  const stream = openStream(session, `cl-a:${guestPort()}`);
  expect(await statusOf(stream)).toBe(200);
  await until('the guest is asked', () => accepted.length > before);
  const socket = accepted.at(-1);
  if (!socket) throw new Error('no connection');
  return { stream, socket };
}

/** Everything until the end. Not by iteration, which destroys a stream that is also written to. */
async function readAll(readable: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  readable.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(readable, 'end');
  return Buffer.concat(chunks);
}

async function text(readable: Readable): Promise<string> {
  return (await readAll(readable)).toString();
}

/** Unlike `once`, not in the way of errors. */
function closed(stream: Duplex): Promise<void> {
  return new Promise((resolve) => stream.once('close', () => resolve()));
}

describe('who may speak', () => {
  it('is nobody without a certificate of the authority and the role', async () => {
    const stranger = await issueLeaf(await issueAuthority(1), 'control-plane', [], 1);
    for (const pair of [pki.agent, stranger, undefined]) {
      const session = connectHttp2(`https://127.0.0.1:${server.port}`, {
        ca: pki.caCertPem,
        ...(pair ? { cert: pair.certPem, key: pair.keyPem } : {}),
      });
      sessions.push(session);
      session.on('error', () => undefined);
      const stream = openStream(session, `cl-a:${guestPort()}`);
      let answered = false;
      stream.on('response', () => {
        answered = true;
      });
      await closed(stream);
      expect(answered).toBe(false);
    }
    expect(accepted).toHaveLength(0);
  });
});

describe('a stop', () => {
  it('ends connections whose handshake has not come to an end', async () => {
    const idle = connect(server.port, '127.0.0.1');
    await once(idle, 'connect');
    const end = closed(idle.resume());
    // Taken after the first one.
    await once(openSession(), 'connect');
    // What agents do: nobody new is let in while the last verbs end.
    server.stopListening();
    await server[Symbol.asyncDispose]();
    await end;
  });
});

describe('verbs', () => {
  const client = () =>
    createClient(
      HostService,
      createConnectTransport({
        httpVersion: '2',
        baseUrl: `https://127.0.0.1:${server.port}`,
        nodeOptions: { ca: pki.caCertPem, cert: pki.controlPlane.certPem, key: pki.controlPlane.keyPem },
      }),
    );
  const failure = (promise: Promise<unknown>) =>
    promise.then(
      () => Promise.reject(new Error('it succeeded')),
      (error: unknown) => ConnectError.from(error),
    );

  it('answer with the errors of the catalogue and no inner text', async () => {
    const missing = await failure(client().getVm({ id: 'cl-x' }));
    expect(fromConnectError(missing)).toMatchObject({ code: 'capsule_not_found', details: { id: 'cl-x' } });
    const defect = await failure(client().getVm({ id: 'defect' }));
    expect(fromConnectError(defect).code).toBe('internal_error');
    expect(defect.rawMessage).not.toContain('secret');
  });

  it('end by the deadline of their caller', async () => {
    expect((await failure(client().destroyVm({ id: 'x' }, { timeoutMs: 50 }))).code).toBe(Code.DeadlineExceeded);
  });

  it('that have begun are answered when the server stops', async () => {
    const answer = client().destroyVm({ id: 'x' });
    await delay(0);
    const other = failure(client().getVm({ id: 'cl-x' }));
    await other;
    server.stopListening();
    const stopped = server[Symbol.asyncDispose]();
    release.resolve();
    await expect(answer).resolves.toBeDefined();
    await stopped;
    expect(finished).toEqual(['destroyVm']);
  });
});

describe('a tunnel', () => {
  it('carries bytes both ways at once, unchanged', async () => {
    const { stream, socket } = await tunnel();
    const up = randomBytes(24 * 1024 * 1024);
    const down = randomBytes(24 * 1024 * 1024);
    const received = Promise.all([readAll(socket), readAll(stream)]);
    stream.end(up);
    socket.end(down);
    const [atGuest, atCaller] = await received;
    expect(atGuest.equals(up)).toBe(true);
    expect(atCaller.equals(down)).toBe(true);
  });

  it("passes on each side's end of data alone", async () => {
    const { stream, socket } = await tunnel();
    stream.end('question');
    expect(await text(socket)).toBe('question');
    socket.end('answer');
    expect(await text(stream)).toBe('answer');

    const second = await tunnel();
    second.socket.end('greeting');
    expect(await text(second.stream)).toBe('greeting');
    second.stream.end('reply');
    expect(await text(second.socket)).toBe('reply');
  });

  it('stops reading from a guest whose data nobody takes, without holding up others', async () => {
    const session = openSession();
    const slow = await tunnel(session);
    slow.stream.pause();
    const chunk = Buffer.alloc(1024 * 1024);
    let written = 0;
    const write = () => {
      while (written < 512 && !slow.socket.destroyed) {
        written += 1;
        if (!slow.socket.write(chunk)) return;
      }
    };
    slow.socket.on('drain', write);
    write();
    await until('the slow tunnel is full', () => slow.socket.writableNeedDrain);
    const quick = await tunnel(session);
    quick.socket.end(Buffer.alloc(32 * 1024 * 1024));
    expect((await readAll(quick.stream)).length).toBe(32 * 1024 * 1024);
    expect(written, 'MiB that the slow tunnel took').toBeLessThan(64);
  });

  it('stops reading from a caller whose data the guest does not take', async () => {
    const { stream, socket } = await tunnel();
    socket.pause();
    const chunk = Buffer.alloc(1024 * 1024);
    let taken = 0;
    const write = () => {
      if (taken < 256) stream.write(chunk, () => write());
      taken += 1;
    };
    write();
    let before = -1;
    await until('it stands still', async () => {
      const still = before === taken;
      before = taken;
      await delay(200);
      return still;
    });
    expect(taken, 'MiB that the tunnel took').toBeLessThan(64);
  });

  it('breaks where its other end breaks', async () => {
    const first = await tunnel();
    const broken = closed(first.stream);
    first.socket.resetAndDestroy();
    await broken;
    expect(first.stream.rstCode).toBe(constants.NGHTTP2_CONNECT_ERROR);

    // Node's own `close` ends the data in order before it resets; a lost connection does not.
    const second = await tunnel();
    second.socket.resume();
    const gone = closed(second.socket);
    second.stream.close(constants.NGHTTP2_CANCEL);
    await once(second.socket, 'end');
    second.socket.end();
    await gone;

    const third = await tunnel();
    third.socket.resume();
    const reset = once(third.socket, 'error');
    sessions.at(-1)?.destroy();
    expect((await reset)[0]).toMatchObject({ code: 'ECONNRESET' });
  });

  it('ends with its guest', async () => {
    const { stream } = await tunnel();
    const gone = closed(stream);
    ended.abort();
    await gone;
    expect(stream.rstCode).not.toBe(constants.NGHTTP2_NO_ERROR);
  });

  it.each([
    ['cl-none:80', 404],
    ['cl-dead:80', 503],
    ['cl-a:1', 502],
    ['cl-a', 400],
    ['cl-a:0', 400],
    ['cl-a:65536', 400],
    ['CL_A:80', 400],
  ])('to %s is refused with %i', async (authority, status) => {
    expect(await statusOf(openStream(openSession(), authority))).toBe(status);
    expect(accepted).toHaveLength(0);
  });
});
