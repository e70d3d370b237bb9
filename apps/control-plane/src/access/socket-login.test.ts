import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { until } from '@wrenn/testing/until';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { auditLog } from '../database/audit-schema.ts';
import { teamMembers } from '../database/people-schema.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform, TestSocket } from '../testing/test-platform.ts';

let platform: TestPlatform;
let people: TestPeople;
let teamId: string;
let capsule: string;
let path: string;
let token: string;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  teamId = await people.addTeam();
  ({ token } = await people.logInNew(teamId, 'member'));
  const { key } = await people.addKey(teamId);
  const { body } = await platform.call('/v1/capsules', { json: {}, headers: { 'x-api-key': key } });
  capsule = `/v1/capsules/${body.id}`;
  path = `${capsule}/exec/stream`;
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const open = async (headers: Record<string, string> = {}, at = path) => {
  const socket = new TestSocket(new WebSocket(`${platform.baseUrl.replace('http', 'ws')}${at}`, { headers }));
  await socket.opened;
  return socket;
};
const auth = (credential: string) => ({ type: 'auth', token: credential });
const refusal = (reason: string) => ({ type: 'error', fatal: true, data: expect.any(String), error: { reason } });

describe('a WebSocket without a credential', () => {
  it('logs in with its first message, and may go on without waiting', async () => {
    const socket = await open();
    socket.send(auth(token));
    const script = 'echo hello; read line; echo "got $line"';
    socket.send({ type: 'start', cmd: '/bin/sh', args: ['-c', script], stdin: true });
    socket.send({ type: 'stdin', data: 'more\n' });
    const frames = await socket.takeUntil(({ type }) => type === 'exit');
    const output = frames.filter(({ type }) => type === 'stdout').map(({ data }) => data);
    expect(output.join('')).toBe('hello\ngot more\n');
    expect(await socket.closed()).toBe(1000);
  });

  it('can do so on each route, and with a key', async () => {
    const { key } = await people.addKey(teamId, { scopes: ['capsules:access'] });
    const terminal = await open({}, `${capsule}/pty`);
    terminal.send(auth(key));
    terminal.send({ type: 'start', cmd: '/bin/sh' });
    const { tag } = (await terminal.takeUntil(({ type }) => type === 'started')).at(-1);
    const follower = await open({}, `${capsule}/processes/${tag}/stream`);
    follower.send(auth(token));
    expect(await follower.next()).toMatchObject({ type: 'start' });
    terminal.send({ type: 'kill' });
    await follower.closed();
  });

  it('is refused when that credential is wrong, or may not do it', async () => {
    const { key: narrow } = await people.addKey(teamId, { scopes: ['capsules:read'] });
    const outside = await people.logIn(await people.addUser(), undefined);
    for (const [message, reason] of [
      [auth('a.b.c'), 'unauthorized'],
      [auth(`wrn_${'0'.repeat(40)}`), 'unauthorized'],
      [auth(narrow), 'insufficient_scope'],
      [auth(outside), 'no_team'],
      [{ type: 'start', cmd: 'true' }, 'unauthorized'],
      [{ type: 'auth' }, 'unauthorized'],
      ['not JSON', 'unauthorized'],
      [Buffer.from(JSON.stringify(auth(token))), 'unauthorized'],
      [auth('x'.repeat(20_000)), 'unauthorized'],
    ] as const) {
      const socket = await open();
      socket.send(message);
      expect(await socket.next()).toMatchObject(refusal(reason));
      expect(await socket.closed()).toBe(1008);
    }
  });

  it('is recorded as refused when it is known who was', async () => {
    const { id, key } = await people.addKey(teamId, { scopes: ['capsules:read'] });
    const socket = await open();
    socket.send(auth(key));
    expect(await socket.closed()).toBe(1008);
    const entries = () => people.db.select().from(auditLog).where(eq(auditLog.actorId, id));
    await until('it is recorded', async () => (await entries()).length > 0);
    expect(await entries()).toMatchObject([{ status: 'error', metadata: { code: 'insufficient_scope' } }]);
  });

  it('sees only its own team', async () => {
    const stranger = await people.logInNew(await people.addTeam(), 'owner');
    const socket = await open();
    socket.send(auth(stranger.token));
    socket.send({ type: 'start', cmd: 'true' });
    expect(await socket.next()).toMatchObject(refusal('capsule_not_found'));
  });

  it('is closed when it says nothing for five seconds', async () => {
    const startedAt = performance.now();
    const socket = await open();
    expect(await socket.next()).toMatchObject(refusal('unauthorized'));
    expect(performance.now() - startedAt).toBeGreaterThan(4500);
    expect(await socket.closed()).toBe(1008);
  });

  it('is closed when the access that its message gave it ends', async () => {
    const leaving = await people.logInNew(teamId, 'member');
    const admin = await people.logInNew(teamId, 'admin');
    const socket = await open();
    socket.send(auth(leaving.token));
    socket.send({ type: 'start', cmd: 'cat', stdin: true });
    await socket.takeUntil(({ type }) => type === 'start');
    const removed = await platform.call(`/v1/teams/${teamId}/members/${leaving.user.id}`, {
      method: 'DELETE',
      headers: { 'x-api-key': admin.token },
    });
    expect(removed.status).toBe(204);
    expect(await people.db.select().from(teamMembers).where(eq(teamMembers.userId, leaving.user.id))).toEqual([]);
    expect(await socket.closed()).not.toBe(1000);
  });
});

describe('the cookie of a login', () => {
  it('opens a WebSocket for pages of this server only', async () => {
    const cookie = `wrenn_session=${token}`;
    const socket = await open({ cookie, origin: platform.baseUrl });
    socket.send({ type: 'start', cmd: 'true' });
    await socket.takeUntil(({ type }) => type === 'exit');
    await expect(open({ cookie, origin: 'https://evil.example' })).rejects.toThrow(/403/);
    await expect(open({ cookie })).rejects.toThrow(/403/);
  });
});

it('leaves no connection open when it refuses an upgrade', async () => {
  const { port } = new URL(platform.baseUrl);
  const socket = connect({ port: Number(port), host: '127.0.0.1', allowHalfOpen: true });
  const upgrade = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'X-API-Key: wrong'];
  socket.write(
    `GET ${path} HTTP/1.1\r\nHost: x\r\n${upgrade.join('\r\n')}\r\nSec-WebSocket-Key: ${btoa('x'.repeat(16))}\r\n\r\n`,
  );
  // Ends by the server's closing it: this side never does.
  expect(await text(socket)).toMatch(/^HTTP\/1.1 401 [\s\S]*"reason":"unauthorized"/);
  socket.destroy();
});
