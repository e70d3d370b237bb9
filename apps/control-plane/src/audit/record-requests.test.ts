import { WrennError } from '@wrenn/protocol/errors';
import Fastify, { type FastifyRequest } from 'fastify';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { actorOf, noteTold } from '../access/actor.ts';
import type { Permission } from '../access/permissions.ts';
import type { Caller } from '../capsules/capsules.ts';
import { handleError } from '../http/error-handler.ts';
import type { Server } from '../http/server.ts';
import { toCsvLine } from './audit-body.ts';
import { PortVisits } from './port-visits.ts';
import type { AuditEntry } from './record.ts';
import { recordRequests } from './record-requests.ts';

const app = Fastify() as unknown as Server;
let entries: AuditEntry[] = [];
let held: PromiseWithResolvers<void> | undefined;
let isFull = false;
let served = 0;
const sink = {
  add: (entry: AuditEntry) => void entries.push(entry),
  write: async (entry: AuditEntry) => {
    await held?.promise;
    entries.push(entry);
  },
  get isFull() {
    return isFull;
  },
};

function post(
  url: string,
  config: object,
  work: (request: FastifyRequest) => unknown = () => ({ id: 'made-1' }),
): void {
  app.post(url, { config: config as { permission: Permission } }, async (request) => {
    served++;
    return work(request);
  });
}

const tell = (result: 'success' | 'failure') => (request: FastifyRequest) => {
  // As a domain does that names another actor for the same request.
  noteTold({ ...actorOf(request), name: 'somebody' }, result);
  if (result === 'failure') throw new WrennError('forbidden');
  return {};
};
const fail = () => {
  throw new WrennError('forbidden');
};

beforeAll(async () => {
  app.setErrorHandler(handleError);
  app.decorateRequest('principal', undefined);
  app.decorateRequest('caller', null as unknown as Caller);
  app.addHook('onRequest', async (request) => {
    if (request.headers.authorization === undefined) return;
    const team = { id: 'team-1', role: 'member' as const };
    request.principal = { type: 'api_key', id: 'key-1', name: 'a key', userId: undefined, team, scopes: undefined };
    request.caller = { teamId: 'team-1', actor: 'key-1' };
  });
  recordRequests(app, sink);
  const permission = 'capsule.write';
  post('/v1/forgotten', { permission });
  post('/v1/things/:id', { permission }, fail);
  post('/v1/told', { permission }, tell('success'));
  post('/v1/told-failure', { permission }, tell('failure'));
  post('/v1/rolled-back', { permission, audit: 'domain' }, (request) => {
    noteTold(actorOf(request), 'success');
    return fail();
  });
  post('/v1/domain', { permission, audit: 'domain' });
  post('/v1/never', { permission, audit: false });
  post('/v1/public', { permission: 'public' });
  post('/v1/public-failure', { permission: 'public' }, fail);
  post('/v1/access/:id', { permission: 'capsule.access' }, tell('success'));
  app.get('/v1/reading', { config: { permission: 'capsule.read' } }, async () => ({}));
  app.get('/v1/refused', { config: { permission: 'audit.read' } }, async () => fail());
  await app.ready();
});
afterAll(() => app.close());
beforeEach(() => {
  entries = [];
  served = 0;
  isFull = false;
  held = undefined;
});

const send = (
  url: string,
  headers: Record<string, string> = { authorization: 'yes' },
  method: 'GET' | 'POST' = 'POST',
) => app.inject({ method, url, headers });

describe('a request', () => {
  it('of a route that nobody gave a rule is recorded, and answered once that is written', async () => {
    held = Promise.withResolvers();
    let isAnswered = false;
    const answer = send('/v1/forgotten').then((sent) => {
      isAnswered = true;
      return sent;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect([isAnswered, entries]).toEqual([false, []]);
    held.resolve();
    expect((await answer).statusCode).toBe(200);
    expect(entries).toMatchObject([
      {
        ...{ teamId: 'team-1', resourceType: 'capsule', resourceId: 'made-1', action: 'post /v1/forgotten' },
        ...{ scope: 'team', status: 'success', actor: { type: 'api_key', id: 'key-1', address: '127.0.0.1' } },
      },
    ]);
  });

  it.each<[string, number, string[]]>([
    ['/v1/told', 200, []],
    ['/v1/told-failure', 403, []],
    ['/v1/domain', 200, []],
    ['/v1/never', 200, []],
    ['/v1/things/t-1', 403, ['error t-1']],
    // What the domain wrote went with its transaction.
    ['/v1/rolled-back', 403, ['error undefined']],
    // Waking the capsule told of itself, and not of the access.
    ['/v1/access/cl-1', 200, ['success cl-1']],
    ['/v1/public', 200, ['success made-1']],
  ])('to %s leaves %i %j', async (url, status, expected) => {
    expect((await send(url)).statusCode).toBe(status);
    expect(entries.map((entry) => `${entry.status} ${entry.resourceId}`)).toEqual(expected);
  });

  it('that only reads is recorded when it is refused', async () => {
    await send('/v1/reading', undefined, 'GET');
    expect(entries).toEqual([]);
    await send('/v1/refused', undefined, 'GET');
    expect(entries).toMatchObject([{ resourceType: 'audit', status: 'error', metadata: { code: 'forbidden' } }]);
  });

  it('of nobody known is recorded only when it changed something', async () => {
    await send('/v1/things/t-1', {});
    await send('/v1/public-failure', {});
    expect(entries).toEqual([]);
    await send('/v1/public', {});
    expect(entries).toMatchObject([{ actor: { type: 'user', name: 'unknown' }, scope: 'platform' }]);
  });

  it('is refused before it does anything while too much waits to be written', async () => {
    isFull = true;
    const answer = await send('/v1/forgotten');
    expect([answer.statusCode, answer.json().error.reason, served]).toEqual([503, 'database_unavailable', 0]);
    expect((await send('/v1/never')).statusCode).toBe(200);
  });
});

describe('visits of ports', () => {
  it('are recorded once in a minute for each key, address, port and result', () => {
    let nowMs = 60_000 * 1000;
    const visits = new PortVisits(sink, () => nowMs);
    const visit = (port: number, id = 'key-1', error?: Error) =>
      visits.note({ teamId: 'team-1', actor: { type: 'api_key', id, name: 'a key' }, capsuleId: 'cl-1', port }, error);
    for (let count = 0; count < 3; count++) {
      visit(80);
      visit(81);
      visit(80, 'key-2');
      visit(80, 'key-1', new WrennError('forbidden'));
    }
    expect(entries).toHaveLength(4);
    nowMs += 59_999;
    visit(80);
    expect(entries).toHaveLength(4);
    nowMs += 1;
    visit(80);
    expect(entries).toHaveLength(5);
  });
});

describe('a line of CSV', () => {
  it('is one line of cells that no spreadsheet runs', () => {
    const line = toCsvLine({
      ...{ id: 'log-1', actor_type: 'user', actor_id: null, actor_name: '=HYPERLINK("x"),a', address: null },
      ...{ resource_type: 'team', resource_id: '-1', action: 'rename\nit', scope: 'team', status: 'success' },
      ...{ metadata: { name: 'a "b"' }, request_id: null, created_at: '2030-01-01T00:00:00.000Z' },
    });
    expect(line).toBe(
      `2030-01-01T00:00:00.000Z,log-1,user,,"'=HYPERLINK(""x""),a",,team,'-1,"rename\nit",team,success,,` +
        `"{""name"":""a \\""b\\""""}"\r\n`,
    );
  });
});
