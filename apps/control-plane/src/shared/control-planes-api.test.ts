import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import type { Duplex } from 'node:stream';
import { startStopwatch } from '@wrenn/testing/stopwatch';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ControlPlane } from '../control-plane.ts';
import { RedisServer } from '../testing/redis-server.ts';
import { SoftwareAuthenticator } from '../testing/software-authenticator.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { Visitor } from '../testing/visitor.ts';

/** Well below the times after which control planes look by themselves, and enough for a busy machine. */
const TOLD_MS = 8000;
const GUEST_PORT = 8125;
const ECHO = `
require('node:http').createServer().on('upgrade', (request, socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: odd\\r\\n\\r\\n');
  socket.pipe(socket);
}).on('request', (request, response) => { response.writeHead(200); response.flushHeaders(); })
  .listen(Number(process.argv[1]), process.argv[2], () => console.log('listening'));`;

describe.each(['PostgreSQL', 'Redis'])('two control planes that share by %s', (kind) => {
  let redis: RedisServer | undefined;
  let platform: TestPlatform;
  let other: ControlPlane;
  let people: TestPeople;
  let bases: readonly string[];
  beforeAll(async () => {
    redis = kind === 'Redis' ? await RedisServer.start() : undefined;
    // Limits low enough to be met, high enough for all other tests of this file.
    const settings = { WRENN_RATE_LIMIT_FACTOR: '1', WRENN_TRUSTED_PROXIES: '127.0.0.1' };
    platform = await TestPlatform.start(
      { ...settings, ...(redis ? { REDIS_URL: redis.url } : {}) },
      // As outside of tests: a busy machine is not a silent host.
      { hostSilenceMs: 15_000 },
    );
    other = await platform.startAnother();
    people = await TestPeople.of(platform);
    bases = [platform.baseUrl, `http://127.0.0.1:${other.port}`];
  });
  afterAll(async () => {
    await people?.[Symbol.asyncDispose]();
    await other?.[Symbol.asyncDispose]();
    await platform?.[Symbol.asyncDispose]();
    await redis?.[Symbol.asyncDispose]();
  });

  /** @param at which control plane: 0 or 1 */
  async function call(at: number, path: string, init: { json?: unknown; token?: string; headers?: object } = {}) {
    const { json, token, headers } = init;
    const answer = await fetch(`${bases[at]}${path}`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(token ? { authorization: `Bearer ${token}` } : {}),
        ...headers,
      },
      body: JSON.stringify(json ?? {}),
    });
    const body = (await answer.json().catch(() => undefined)) as Awaited<ReturnType<TestPlatform['call']>>['body'];
    return { status: answer.status, body };
  }

  async function arriveWithPasskey() {
    const auth = await new Visitor(platform, people).arrive(`${randomUUID()}@example.com`);
    const device = new SoftwareAuthenticator(platform.baseUrl);
    const begun = await call(1, '/v1/me/passkeys/options', { token: auth.token });
    const credential = device.create(begun.body.options);
    const kept = await call(0, '/v1/me/passkeys', { json: { name: 'Telephone', credential }, token: auth.token });
    expect(kept).toMatchObject({ status: 201 });
    return device;
  }

  it('take a challenge that either of them made, and of many answers at once one', async () => {
    const device = await arriveWithPasskey();
    const { body } = await call(0, '/v1/auth/passkey/options');
    const credential = device.get(body.options);
    // The passkey is of the first one's address, and so must be what the browser says.
    const headers = { 'x-forwarded-host': new URL(bases[0] ?? '').host };
    const answers = await Promise.all(
      Array.from({ length: 6 }, (_, n) => call(n % 2, '/v1/auth/passkey/verify', { json: { credential }, headers })),
    );
    expect(answers.map(({ status }) => status).toSorted()).toEqual([200, 401, 401, 401, 401, 401]);
  });

  it('count attempts together', async () => {
    const json = { email: `${randomUUID()}@example.com`, password: 'a wrong password' };
    const attempt = (n: number) =>
      call(n % 2, '/v1/auth/login', { json, headers: { 'x-forwarded-for': `198.51.100.${n}` } });
    const first = await Promise.all(Array.from({ length: 30 }, (_, n) => attempt(n)));
    const next = await Promise.all(Array.from({ length: 4 }, (_, n) => attempt(100 + n)));
    expect(first.filter(({ status }) => status === 429)).toEqual([]);
    expect(next.map(({ status }) => status)).toEqual([429, 429, 429, 429]);
  });

  it('wake those who wait at one for a capsule that the other resumes', async () => {
    const id = await platform.createCapsule();
    expect((await platform.call(`/v1/capsules/${id}/pause`, { method: 'POST' })).status).toBeLessThan(300);
    let goOn = () => {};
    let begun = false;
    platform.host.before.resume = async () => {
      begun = true;
      await new Promise<void>((resolve) => {
        goOn = resolve;
      });
    };
    const headers = { 'x-api-key': platform.apiKey };
    const resumed = call(0, `/v1/capsules/${id}/resume`, { headers });
    await until('the host resumes it', () => begun);
    let answered = false;
    const json = { cmd: 'echo', args: ['awake'] };
    const waiting = call(1, `/v1/capsules/${id}/exec`, { json, headers }).finally(() => {
      answered = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(answered).toBe(false);
    using stopwatch = startStopwatch();
    goOn();
    expect((await resumed).status).toBeLessThan(300);
    expect(await waiting).toMatchObject({ status: 200, body: { stdout: 'awake\n' } });
    expect(stopwatch.elapsedMs).toBeLessThan(TOLD_MS);
    platform.host.behave();
  });

  it('close what one of them holds open for a key that the other revokes', async () => {
    const owner = await people.logInNew(await people.addTeam(), 'owner');
    const { body: made } = await call(0, '/v1/api-keys', { json: { name: 'key' }, token: owner.token });
    const headers = { 'x-api-key': made.key };
    const { body: capsule } = await call(0, '/v1/capsules', { headers });
    const command = await platform.connect(`/v1/capsules/${capsule.id}/exec/stream`, {
      ...{ credential: made.key, port: other.port },
    });
    const { host_ip: address } = await read(`/v1/capsules/${capsule.id}`, made.key);
    command.send({ type: 'start', cmd: process.execPath, args: ['-e', ECHO, String(GUEST_PORT), address] });
    await command.takeUntil(({ type }) => type === 'stdout');
    const socket = await openAtEdge(capsule.id, made.key, { connection: 'Upgrade', upgrade: 'odd' });
    const answer = await openAtEdge(capsule.id, made.key, {});

    using stopwatch = startStopwatch();
    const revoked = await fetch(`${bases[0]}/v1/api-keys/${made.id}`, {
      ...{ method: 'DELETE', headers: { authorization: `Bearer ${owner.token}` } },
    });
    expect(revoked.status).toBe(204);
    expect(await command.closed()).toBe(1008);
    await until('the port is cut off', () => socket.closed && answer.closed);
    expect(stopwatch.elapsedMs).toBeLessThan(TOLD_MS);
  });

  async function read(path: string, key: string) {
    return (await (await fetch(`${bases[0]}${path}`, { headers: { 'x-api-key': key } })).json()) as { host_ip: string };
  }

  /** A stream from a port of a capsule, through the other control plane. */
  async function openAtEdge(capsule: string, key: string, headers: Record<string, string>): Promise<Duplex> {
    const outgoing = request({
      port: other.port,
      headers: { host: `${GUEST_PORT}-${capsule}.capsules.example`, 'x-api-key': key, ...headers },
    });
    outgoing.end();
    const event = headers.upgrade ? 'upgrade' : 'response';
    const [answer, socket] = await once(outgoing, event);
    const stream: Duplex = socket ?? answer;
    stream.on('error', () => undefined);
    stream.resume();
    return stream;
  }

  if (kind === 'PostgreSQL') return;

  it('go on while Redis is away and when it is back', { timeout: 180_000 }, async () => {
    const device = await arriveWithPasskey();
    const headers = { 'x-forwarded-host': new URL(bases[0] ?? '').host };
    const options = async () => (await call(0, '/v1/auth/passkey/options')).body.options;
    const verify = (credential: unknown) => call(1, '/v1/auth/passkey/verify', { json: { credential }, headers });
    const [early, late] = [device.get(await options(), { counter: 5 }), device.get(await options(), { counter: 6 })];
    await redis?.kill();
    const refused = await verify(early);
    expect([refused.status, refused.body.error.reason]).toEqual([503, 'shared_state_unavailable']);
    expect((await verify(device.get(await options(), { counter: 7 }))).status).toBe(200);
    await platform.createCapsule();
    for (const base of bases) {
      const ready = await fetch(`${base}/ready`);
      expect([ready.status, await ready.json()]).toMatchObject([200, { checks: { redis: { ok: false } } }]);
    }

    await redis?.start();
    // Each connects anew at its next try. To be asked for this counts against no limit.
    await until('both use Redis again', async () => {
      const answers = await Promise.all(bases.map(async (base) => (await fetch(`${base}/ready`)).json()));
      return answers.every((ready) => (ready as { checks: { redis: { ok: boolean } } }).checks.redis.ok);
    });
    expect((await verify(late)).status).toBe(401);
    await options();
    expect(await redis?.ask('KEYS', '*:token:*')).not.toEqual([]);
    expect((await verify(device.get(await options(), { counter: 8 }))).status).toBe(200);
    expect((await platform.call('/ready')).body.checks.redis).toEqual({ ok: true, detail: 'answers' });
  });
});
