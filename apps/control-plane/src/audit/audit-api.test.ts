import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import { and, eq, sql } from 'drizzle-orm';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type AuditRow, auditLog } from '../database/audit-schema.ts';
import { type ApiOperation, operationsOf } from '../testing/api-operations.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform, TestSocket } from '../testing/test-platform.ts';

/** Guests of this host see the machine's own files. */
const dir = mkdtempSync(join(tmpdir(), 'wrenn-audit-'));
let platform: TestPlatform;
let people: TestPeople;
/** Runs all the time. */
let running: string;
let operations: ApiOperation[];
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  running = await platform.createCapsule();
  operations = operationsOf((await platform.call('/openapi.json')).body);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
  await rm(dir, { recursive: true });
});

type Call = Parameters<TestPlatform['call']>;

/** What a request is recorded as. */
interface Recorded {
  readonly entry: string;
  readonly metadata?: Record<string, unknown>;
}

interface Scenario extends Recorded {
  /** The request; what it needs is made before. */
  readonly call: () => Promise<Call>;
}

const capsule = (verb: string, json?: object) => async (): Promise<Call> => [
  `/v1/capsules/${await platform.createCapsule()}${verb}`,
  json ? { json } : { method: 'POST' },
];
const inside = (path: string, init: NonNullable<Call[1]>) => async (): Promise<Call> => [
  `/v1/capsules/${running}${path}`,
  init,
];
const paused = async (): Promise<string> => {
  const id = await platform.createCapsule();
  await platform.call(`/v1/capsules/${id}/pause`, { method: 'POST' });
  return id;
};
const bytes = { method: 'POST', body: 'text', headers: { 'content-type': 'application/octet-stream' } };
const sleepingProcess = async (): Promise<string> => {
  const { body } = await platform.call(`/v1/capsules/${running}/exec`, {
    json: { cmd: 'sleep', args: ['60'], background: true },
  });
  return body.tag;
};

const SCENARIOS: Record<string, Scenario> = {
  createCapsule: {
    call: async () => ['/v1/capsules', { json: {} }],
    entry: 'capsule create success',
    metadata: { template: 'minimal' },
  },
  destroyCapsule: {
    call: async () => [`/v1/capsules/${await platform.createCapsule()}`, { method: 'DELETE' }],
    entry: 'capsule destroy success',
  },
  updateCapsule: {
    call: async () => [
      `/v1/capsules/${await platform.createCapsule()}`,
      { method: 'PATCH', json: { timeout_sec: 77, metadata: { password: 'hunter2' } } },
    ],
    entry: 'capsule update success',
    metadata: { timeout_sec: 77, labels: 1 },
  },
  getCapsuleLogs: { call: inside('/logs', {}), entry: 'capsule console_read success' },
  pauseCapsule: { call: capsule('/pause'), entry: 'capsule pause success' },
  resumeCapsule: {
    call: async () => [`/v1/capsules/${await paused()}/resume`, { method: 'POST' }],
    entry: 'capsule resume success',
  },
  forkCapsule: { call: capsule('/fork', { count: 2 }), entry: 'capsule fork success' },
  hibernateCapsule: {
    call: async () => [`/v1/capsules/${await paused()}/hibernate`, { method: 'POST' }],
    entry: 'capsule hibernate success',
  },
  verifyCapsule: {
    call: async () => [`/v1/capsules/${await paused()}/verify`, { method: 'POST' }],
    entry: 'capsule verify success',
  },
  createSnapshotOfCapsule: {
    call: inside('/snapshots', { json: { name: 'one' } }),
    entry: 'snapshot create success',
    metadata: { name: 'one' },
  },
  createSnapshot: {
    call: async () => ['/v1/snapshots', { json: { capsule_id: running, name: 'two' } }],
    entry: 'snapshot create success',
  },
  deleteSnapshot: {
    call: async () => {
      await platform.call(`/v1/capsules/${running}/snapshots`, { json: { name: 'three' } });
      return ['/v1/snapshots/three', { method: 'DELETE' }];
    },
    entry: 'snapshot delete success',
    metadata: { name: 'three' },
  },
  exec: {
    call: inside('/exec', { json: { cmd: '/bin/echo', args: ['hunter2'], envs: { TOKEN: 'hunter2' } } }),
    entry: 'capsule exec success',
    metadata: { program: 'echo', args: 1, command_length: 17, http_status: 200 },
  },
  listProcesses: { call: inside('/processes', {}), entry: 'capsule process_list success' },
  killProcess: {
    call: async () => [`/v1/capsules/${running}/processes/${await sleepingProcess()}`, { method: 'DELETE' }],
    entry: 'capsule process_signal success',
  },
  writeFile: {
    call: inside(`/files/write?path=${dir}/a.txt`, bytes),
    entry: 'capsule file_write success',
    metadata: { path: `${dir}/a.txt` },
  },
  writeFileStream: {
    call: inside(`/files/stream/write?path=${dir}/b.txt`, bytes),
    entry: 'capsule file_write success',
  },
  readFile: {
    call: inside('/files/read', { json: { path: '/etc/hostname' } }),
    entry: 'capsule file_read success',
    metadata: { path: '/etc/hostname' },
  },
  readFileStream: {
    call: inside('/files/stream/read', { json: { path: '/etc/hostname' } }),
    entry: 'capsule file_read success',
  },
  listDir: { call: inside('/files/list', { json: { path: '/' } }), entry: 'capsule file_list success' },
  makeDir: { call: inside('/files/mkdir', { json: { path: `${dir}/d` } }), entry: 'capsule file_mkdir success' },
  removePath: {
    call: inside('/files/remove', { json: { path: `${dir}/a.txt` } }),
    entry: 'capsule file_remove success',
  },
  createApiKey: { call: async () => ['/v1/api-keys', { json: { name: 'made' } }], entry: 'api_key create success' },
  createChannel: {
    call: async () => [
      '/v1/channels',
      { json: { name: 'hook', provider: 'webhook', config: { url: 'https://example.com/x' }, events: ['host.up'] } },
    ],
    entry: 'channel create success',
  },
  renameTeam: {
    call: async () => [`/v1/teams/${await ownTeamId()}`, { method: 'PATCH', json: { name: 'Other' } }],
    entry: 'team rename success',
  },
};

/** WebSockets: their beginning and their end. */
const SOCKETS = ['execStream', 'processStream', 'pty'];
/** Changes nothing that anybody would ask for. */
const UNRECORDED = ['pingCapsule'];

async function entriesOf(requestId: string): Promise<AuditRow[]> {
  return people.db.select().from(auditLog).where(eq(auditLog.requestId, requestId)).orderBy(auditLog.createdAt);
}

async function ownTeamId(): Promise<string> {
  const { rows } = await people.db.execute<{ team_id: string }>(
    sql`SELECT team_id FROM capsules WHERE id = ${running}`,
  );
  return rows[0]?.team_id ?? '';
}

/** Entries of a request as soon as there is one, and once more when a later one must be there. */
async function settledEntriesOf(requestId: string): Promise<AuditRow[]> {
  await until(`${requestId} is recorded`, async () => (await entriesOf(requestId)).length > 0);
  // What came later is written in order after it.
  const marker = `${requestId}-marker`;
  await platform.fetch(`/v1/capsules/${running}/logs`, { headers: { 'x-request-id': marker } });
  await until('a later request is recorded', async () => (await entriesOf(marker)).length > 0);
  return entriesOf(requestId);
}

let token = '';

describe('every operation that changes something or enters a capsule', () => {
  const isRecorded = ({ method, permission }: ApiOperation) => method !== 'GET' || permission === 'capsule.access';

  it('of capsules and snapshots is one of these tests', () => {
    const ids = operations
      .filter(isRecorded)
      .filter(({ permission }) => /^(capsule|snapshot)\./.test(permission))
      .map(({ id }) => id);
    const tested = [...Object.keys(SCENARIOS), ...SOCKETS, ...UNRECORDED];
    expect(ids.filter((id) => !tested.includes(id))).toEqual([]);
    expect(ids.length).toBeGreaterThan(20);
  });

  it.each(Object.entries(SCENARIOS))('leaves one entry: %s', async (id, { call, entry, metadata }) => {
    const operation = operations.find((each) => each.id === id);
    const needsLogin = !operation?.spec['x-wrenn-scope'];
    if (needsLogin && !token) token = (await people.logInNew(await ownTeamId(), 'owner')).token;
    const [path, init] = await call();
    const requestId = `test-${id}`;
    const headers = { ...init?.headers, 'x-request-id': requestId } as Record<string, string>;
    if (needsLogin) Object.assign(headers, { 'x-api-key': '', authorization: `Bearer ${token}` });
    const answer = await fetchWith(path, { ...init, headers });
    expect([answer.status, answer.status < 300 ? '' : await answer.text()]).toEqual([expect.any(Number), '']);
    await answer.arrayBuffer().catch(() => undefined);
    const entries = await settledEntriesOf(requestId);
    expect(entries.map(({ resourceType, action, status }) => `${resourceType} ${action} ${status}`)).toEqual([entry]);
    expect(entries[0]).toMatchObject({
      ...{ address: '127.0.0.1', teamId: await ownTeamId(), actorType: needsLogin ? 'user' : 'api_key' },
      metadata: metadata ?? {},
    });
    expect(entries[0]?.resourceId).toEqual(expect.any(String));
    expect(JSON.stringify(entries)).not.toContain('hunter2');
  });

  function fetchWith(path: string, init: NonNullable<Call[1]>): Promise<Response> {
    const headers = { ...(init.headers as Record<string, string>) };
    if (headers['x-api-key'] !== '') return platform.fetch(path, init);
    delete headers['x-api-key'];
    const { json, ...rest } = init;
    return fetch(`${platform.baseUrl}${path}`, {
      ...(rest as RequestInit),
      method: init.method ?? 'POST',
      headers: { ...headers, ...(json ? { 'content-type': 'application/json' } : {}) },
      ...(json ? { body: JSON.stringify(json) } : {}),
    });
  }

  it('leaves one entry that says why when it is refused, whichever it is', async () => {
    const teamId = await ownTeamId();
    const { id: keyId, key } = await people.addKey(teamId, { scopes: [] });
    for (const { id, method, path, permission, isSocket, spec } of operations) {
      // What a host's credential is refused for is another test's.
      if (permission === 'public' || permission === 'host') continue;
      const requestId = `refused-${id}`;
      const ownPath = path.replace(`{${spec['x-wrenn-team-param']}}`, teamId);
      const url = `${platform.baseUrl}${ownPath.replaceAll(/\{\w+\}/g, 'x')}`;
      const headers = { 'x-api-key': key, 'x-request-id': requestId };
      const status = isSocket ? await refusedSocket(url, headers) : (await fetch(url, { method, headers })).status;
      expect([id, status]).toEqual([id, 403]);
      await until(`${id} is recorded`, async () => (await entriesOf(requestId)).length > 0);
      const entries = await entriesOf(requestId);
      expect([id, entries.length]).toEqual([id, 1]);
      expect(entries[0]).toMatchObject({ status: 'error', actorId: keyId, address: '127.0.0.1' });
      expect(['insufficient_scope', 'login_required']).toContain(entries[0]?.metadata.code);
    }
  }, 180_000);

  function refusedSocket(url: string, headers: Record<string, string>): Promise<number> {
    const socket = new WebSocket(url.replace('http', 'ws'), { headers });
    socket.on('error', () => undefined);
    return new Promise((resolve) => {
      socket.once('unexpected-response', (request, answer) => {
        resolve(answer.statusCode ?? 0);
        request.destroy();
      });
    });
  }
});

describe('a WebSocket', () => {
  async function open(path: string, requestId: string): Promise<TestSocket> {
    const socket = new WebSocket(`${platform.baseUrl.replace('http', 'ws')}${path}`, {
      headers: { 'x-api-key': platform.apiKey, 'x-request-id': requestId },
    });
    const opened = new TestSocket(socket);
    await opened.opened;
    return opened;
  }

  it.each([
    ['exec/stream', { type: 'start', cmd: 'sleep', args: ['hunter2'] }, 'exec_stream', 'start', { program: 'sleep' }],
    ['pty', { type: 'start', cols: 80, rows: 24 }, 'pty', 'started', { program: 'bash' }],
  ])('is recorded when it begins and when it ends: %s', async (path, first, action, answer, metadata) => {
    const requestId = `socket-${action}`;
    const socket = await open(`/v1/capsules/${running}/${path}`, requestId);
    socket.send(first);
    await socket.takeUntil(({ type }) => type === answer || type === 'end' || type === 'exit');
    await until('its beginning is recorded', async () => (await entriesOf(requestId)).length >= 1);
    socket.socket.close();
    await until('its end is recorded', async () => (await entriesOf(requestId)).length === 2);
    const entries = await settledEntriesOf(requestId);
    expect(entries).toMatchObject([
      { action, status: 'success', resourceId: running, metadata },
      { action: `${action}_end`, status: 'info', metadata: { duration_ms: expect.any(Number) } },
    ]);
    expect(JSON.stringify(entries)).not.toContain('hunter2');
  });

  it('that follows a process is recorded with it', async () => {
    const tag = await sleepingProcess();
    const socket = await open(`/v1/capsules/${running}/processes/${tag}/stream`, 'socket-follow');
    await socket.takeUntil(({ type }) => type === 'start');
    socket.socket.close();
    await until('its end is recorded', async () => (await entriesOf('socket-follow')).length === 2);
    expect((await entriesOf('socket-follow'))[0]).toMatchObject({
      action: 'process_stream',
      metadata: { process: tag },
    });
  });

  it('that fails is recorded once, as that', async () => {
    const path = '/v1/capsules/cl-0000000000000000000000000/pty';
    const socket = await open(path, 'socket-failed');
    socket.send({ type: 'start', cols: 80, rows: 24 });
    await socket.closed();
    const [entry, ...others] = await settledEntriesOf('socket-failed');
    expect(others).toEqual([]);
    expect(entry).toMatchObject({ action: 'pty', status: 'error', metadata: { code: 'capsule_not_found' } });
  });
});

describe('a request that fails', () => {
  it.each<[string, () => Promise<Call>, string, string]>([
    [
      'because of the state of the capsule',
      async () => [`/v1/capsules/${await paused()}/pause`, { method: 'POST' }],
      'capsule pause error',
      'invalid_state',
    ],
    [
      'because there is no such capsule',
      async () => ['/v1/capsules/cl-0000000000000000000000000/exec', { json: { cmd: 'ls' } }],
      'capsule exec error',
      'capsule_not_found',
    ],
    [
      'because it is malformed',
      inside('/files/list', { json: { path: 7 } }),
      'capsule file_list error',
      'invalid_request',
    ],
  ])('%s leaves one entry', async (what, call, entry, code) => {
    const requestId = `failed-${what.replaceAll(' ', '-')}`;
    const [path, init] = await call();
    await platform.fetch(path, { ...init, headers: { 'x-request-id': requestId } });
    const entries = await settledEntriesOf(requestId);
    expect(entries.map(({ resourceType, action, status }) => `${resourceType} ${action} ${status}`)).toEqual([entry]);
    expect(entries[0]?.metadata).toMatchObject({ code });
  });

  it('in the middle of its operation leaves one entry', async () => {
    const id = await platform.createCapsule();
    platform.host.before.pause = () => Promise.reject(new Error('the disk is full'));
    const headers = { 'x-request-id': 'failed-operation' };
    const { status } = await platform.fetch(`/v1/capsules/${id}/pause`, { method: 'POST', headers });
    platform.host.behave();
    expect(status).toBeGreaterThanOrEqual(500);
    const entries = await settledEntriesOf('failed-operation');
    expect(entries).toMatchObject([
      { action: 'pause', status: 'error', metadata: { operation_id: expect.any(String) } },
    ]);
  });

  it('without a credential leaves none', async () => {
    const headers = { 'x-request-id': 'anonymous' };
    await fetch(`${platform.baseUrl}/v1/capsules`, { method: 'POST', headers });
    await fetch(`${platform.baseUrl}/v1/capsules`, { method: 'POST', headers: { ...headers, 'x-api-key': 'wrn_x' } });
    await platform.fetch(`/v1/capsules/${running}/logs`, { headers: { 'x-request-id': 'not-anonymous' } });
    await until('a later one is recorded', async () => (await entriesOf('not-anonymous')).length > 0);
    expect(await entriesOf('anonymous')).toEqual([]);
  });
});

describe('a client that repeats or leaves', () => {
  it('leaves one entry for one change', async () => {
    const headers = { 'idempotency-key': 'audit-1', 'x-request-id': 'repeated' };
    const first = await platform.call('/v1/capsules', { json: {}, headers });
    const second = await platform.call('/v1/capsules', { json: {}, headers });
    expect(second.body.id).toBe(first.body.id);
    expect(await settledEntriesOf('repeated')).toHaveLength(1);
  });

  it('leaves the entry of what goes on without it', async () => {
    const began = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    platform.host.beforeCreate = () => {
      began.resolve();
      return release.promise;
    };
    const leaving = new AbortController();
    const headers = { 'x-request-id': 'left' };
    const call = platform.fetch('/v1/capsules', { json: {}, headers, signal: leaving.signal }).catch(() => undefined);
    await began.promise;
    leaving.abort();
    await call;
    expect(await entriesOf('left')).toEqual([]);
    platform.host.behave();
    release.resolve();
    expect(await settledEntriesOf('left')).toMatchObject([{ action: 'create', status: 'success' }]);
  });
});

describe('what the platform does by itself', () => {
  const ofCapsule = (id: string) =>
    people.db
      .select()
      .from(auditLog)
      .where(and(eq(auditLog.resourceId, id), eq(auditLog.actorType, 'system')))
      .orderBy(auditLog.createdAt);

  it('is recorded: the pause of an idle capsule', async () => {
    const id = await platform.createCapsule({ timeout_sec: 1 });
    await until('it is paused', 90_000, async () => (await ofCapsule(id)).length > 0);
    expect(await ofCapsule(id)).toMatchObject([
      { action: 'pause', status: 'info', actorName: 'system', address: null },
    ]);
  });

  it('is recorded: a crash, and a host that was silent', async () => {
    const id = await platform.createCapsule();
    const crashing = await platform.createCapsule();
    await platform.host.crash(crashing);
    await until('the crash is recorded', async () => (await ofCapsule(crashing)).length > 0);
    expect(await ofCapsule(crashing)).toMatchObject([
      { action: 'error', status: 'error', metadata: { from: 'running', reason: 'The guest crashed.' } },
    ]);
    await platform.host.goSilent();
    await until('it is missing', async () => (await ofCapsule(id)).length === 1);
    await platform.host.listen();
    await until('it is back', async () => (await ofCapsule(id)).length === 2);
    expect(await ofCapsule(id)).toMatchObject([
      { action: 'missing', status: 'warning' },
      { action: 'return', status: 'info', metadata: { from: 'missing', to: 'running' } },
    ]);
    const hosts = await people.db.select().from(auditLog).where(eq(auditLog.resourceType, 'host'));
    expect(hosts.map(({ action }) => action)).toEqual(expect.arrayContaining(['unreachable', 'online']));
  }, 180_000);
});

describe('a port of a capsule', () => {
  it('is recorded once a minute for each key, port and result', async () => {
    const id = await platform.createCapsule();
    const visit = (port: number) =>
      platform.fetch('/', { headers: { 'e2b-sandbox-id': id, 'e2b-sandbox-port': String(port) } });
    for (let count = 0; count < 5; count++) await visit(8123);
    await visit(49_983);
    const visits = () =>
      people.db
        .select()
        .from(auditLog)
        .where(and(eq(auditLog.resourceId, id), eq(auditLog.action, 'port')));
    await until('both are recorded', async () => (await visits()).length >= 2);
    const found = await visits();
    // The minute may have ended in between.
    expect(found.length).toBeLessThanOrEqual(4);
    expect(found.map(({ status, metadata }) => [status, metadata])).toEqual(
      expect.arrayContaining([
        ['success', { port: 8123 }],
        ['error', { port: 49_983, code: 'forbidden' }],
      ]),
    );
    expect(found[0]).toMatchObject({ address: '127.0.0.1', actorType: 'api_key' });
  });
});

interface AuditItem {
  readonly resource_type: string;
  readonly resource_id: string | null;
  readonly scope: string;
}

describe('the log', () => {
  const list = async (bearer: string, query = '', path = '/v1/audit-logs') => {
    const answer = await fetch(`${platform.baseUrl}${path}${query}`, {
      headers: { authorization: `Bearer ${bearer}` },
    });
    return { status: answer.status, body: (await answer.json()) as { items: AuditItem[] } };
  };

  it('shows each role what it may see', async () => {
    const teamId = await people.addTeam();
    const { token: owner } = await people.logInNew(teamId, 'owner');
    const { token: member } = await people.logInNew(teamId, 'member');
    const newcomer = await people.addUser();
    const added = await fetch(`${platform.baseUrl}/v1/teams/${teamId}/members`, {
      method: 'POST',
      headers: { authorization: `Bearer ${owner}`, 'content-type': 'application/json' },
      body: JSON.stringify({ email: newcomer.email }),
    });
    expect(added.status).toBeLessThan(300);
    const created = await fetch(`${platform.baseUrl}/v1/capsules`, {
      method: 'POST',
      headers: { authorization: `Bearer ${member}` },
    });
    expect(created.status).toBe(201);
    const seen = async (bearer: string) => (await list(bearer)).body.items.map(({ resource_type }) => resource_type);
    expect(await seen(owner)).toEqual(expect.arrayContaining(['invitation', 'capsule']));
    expect(await seen(member)).toEqual(['capsule']);
    const { token: stranger } = await people.logInNew(await people.addTeam(), 'owner');
    expect(await seen(stranger)).toEqual([]);
    const { key } = await people.addKey(teamId, { scopes: ['capsules:read'] });
    expect((await list(key)).status).toBe(403);
    expect((await list(owner, '', '/v1/admin/audit-logs')).status).toBe(403);
    const admin = await people.addUser({ isAdmin: true });
    const { status, body } = await list(await people.logIn(admin, undefined), '?limit=200', '/v1/admin/audit-logs');
    expect(status).toBe(200);
    expect(body.items.length).toBeGreaterThan(0);
    for (const { scope, resource_id } of body.items) {
      expect([scope, resource_id]).toEqual(['platform', resource_id]);
    }
  });

  it('can be exported as NDJSON and CSV, which is recorded', async () => {
    const text = async (query: string) => {
      const answer = await platform.fetch(`/v1/audit-logs/export${query}`);
      expect(answer.status).toBe(200);
      return answer.text();
    };
    const lines = (await text('?resource_type=capsule')).trim().split('\n');
    expect(lines.length).toBeGreaterThan(20);
    for (const line of lines)
      expect(JSON.parse(line)).toMatchObject({ resource_type: 'capsule', id: expect.any(String) });
    const csv = (await text('?format=csv&action=exec')).split('\r\n');
    expect(csv[0]).toMatch(/^created_at,id,actor_type,/);
    expect(csv[1]).toContain('first key');
    await until('the export is recorded', async () => {
      const { body } = await platform.call('/v1/audit-logs?resource_type=audit_log&action=export&status=success');
      return body.items.length === 2;
    });
    expect((await platform.call('/v1/audit-logs?cursor=nonsense')).body.error.code).toBe('invalid_request');
  });
});

describe('a database that is away', () => {
  it('gets the entries of what went on when it is back', async () => {
    const socket = new WebSocket(`${platform.baseUrl.replace('http', 'ws')}/v1/capsules/${running}/pty`, {
      headers: { 'x-api-key': platform.apiKey, 'x-request-id': 'outage' },
    });
    const opened = new TestSocket(socket);
    await opened.opened;
    opened.send({ type: 'start', cols: 80, rows: 24 });
    await until('its beginning is recorded', async () => (await entriesOf('outage')).length === 1);

    const { rows } = await people.db.execute<{ name: string }>(sql`SELECT current_database() AS name`);
    const name = rows[0]?.name ?? '';
    await using admin = await openAdmin(name);
    await admin.client.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    try {
      await admin.client.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'wrenn-cp'`,
        [name],
      );
      socket.close();
      await opened.closed();
      await until('requests fail', async () => (await platform.fetch('/v1/capsules')).status >= 500);
    } finally {
      await admin.client.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
    }
    await until('it is recorded', async () => (await entriesOf('outage').catch(() => [])).length === 2);
    expect((await entriesOf('outage'))[1]).toMatchObject({ action: 'pty_end', status: 'info' });
  }, 180_000);

  /** A connection to another database of the same server. */
  async function openAdmin(name: string) {
    const client = new Client(platform.databaseUrl.replace(`/${name}`, '/postgres'));
    await client.connect();
    return { client, [Symbol.asyncDispose]: () => client.end() };
  }
});
