import { randomBytes } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import { sql } from 'drizzle-orm';
import Fastify from 'fastify';
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { z } from 'zod';
import type { KeyHolder } from '../access/principal.ts';
import type { Database } from '../database/database.ts';
import { OWNER_LOCK_CLASS } from '../operations/operation-store.ts';
import { KeyRing } from '../secrets/key-ring.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { handleError } from './error-handler.ts';
import { rememberAnswers } from './idempotency.ts';
import { deleteRequestsBefore } from './idempotency-store.ts';
import type { Server } from './server.ts';

const RUNNER = 4711;

let database: Database;
let app: Server;
let served = 0;
/** What the route does next. */
let work: () => Promise<unknown>;
const stack = new AsyncDisposableStack();

beforeAll(async () => {
  database = stack.use(await openTestDatabase());
  app = Fastify().withTypeProvider<ZodTypeProvider>() as Server;
  stack.defer(() => app.close());
  app.setValidatorCompiler(validatorCompiler).setSerializerCompiler(serializerCompiler).setErrorHandler(handleError);
  app.decorateRequest('principal', undefined);
  app.addHook('onRequest', async (request) => {
    if (request.routeOptions.config.permission !== 'public') request.principal = keyHolder(`${request.headers.as}`);
  });
  rememberAnswers(app, {
    ...{ db: database.db, runner: RUNNER },
    ...{ jwtSecret: randomBytes(32), keyRing: new KeyRing([randomBytes(32)]) },
  });
  app.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload));
  for (const [url, permission] of [
    ['/things/:id', 'capsule.write'],
    ['/open', 'public'],
  ] as const) {
    const schema = { operationId: url, params: z.object({ id: z.string().optional() }) };
    app.post(url, { config: { permission }, schema }, async (_request, reply) => {
      served++;
      const body = await work();
      reply.header('location', '/somewhere').code(body === null ? 204 : 201);
      return body;
    });
  }
  app.post('/read', { config: { permission: 'public', idempotency: 'ignored' }, schema: {} }, async () => ({
    served: ++served,
  }));
});
afterAll(() => stack.disposeAsync());
beforeEach(() => {
  work = async () => ({ number: served });
});

const keyHolder = (id: string): KeyHolder => ({
  ...{ type: 'api_key', id, name: id, userId: undefined, scopes: undefined },
  team: { id: 'team-1', role: 'admin' },
});

const send = (key: string, payload: object | string = {}, url = '/things/1', headers: object = {}) =>
  app.inject({ method: 'POST', url, payload, headers: { as: 'key-1', 'idempotency-key': key, ...headers } });

it('answers a repeated request with the first answer and does nothing more', async () => {
  const first = await send('a', { x: 1, y: [{ p: 1, q: 2 }] });
  const count = served;
  const again = await send('a', { y: [{ q: 2, p: 1 }], x: 1 });
  expect([again.statusCode, again.body, again.headers.location]).toEqual([201, first.body, '/somewhere']);
  expect([first.headers['idempotency-replayed'], again.headers['idempotency-replayed']]).toEqual([undefined, 'true']);
  expect(served).toBe(count);
});

it('repeats an answer without a body', async () => {
  work = async () => null;
  await send('empty');
  const again = await send('empty');
  expect([again.statusCode, again.body, again.headers['idempotency-replayed']]).toEqual([204, '', 'true']);
});

it('refuses the key with another body, path or query, and takes it for another route or caller', async () => {
  await send('b', { x: 1 });
  for (const [payload, url] of [
    [{ x: 2 }, '/things/1'],
    [{ x: 1 }, '/things/2'],
    [{ x: 1 }, '/things/1?a=b'],
  ] as const) {
    const answer = await send('b', payload, url);
    expect([answer.statusCode, answer.json().error.reason]).toEqual([409, 'idempotency_key_used']);
  }
  expect((await send('b', { x: 1 }, '/open')).headers['idempotency-replayed']).toBeUndefined();
  expect((await send('b', { x: 2 }, '/things/1', { as: 'key-2' })).statusCode).toBe(201);
});

it('tells requests without a credential apart by all that they hold', async () => {
  const one = await send('open', { password: 'one' }, '/open');
  const two = await send('open', { password: 'two' }, '/open');
  expect(two.body).not.toBe(one.body);
  expect((await send('open', { password: 'one' }, '/open')).body).toBe(one.body);
});

it('serves once what comes several times at the same instant', async () => {
  const release = Promise.withResolvers<void>();
  const before = served;
  work = async () => {
    await release.promise;
    return { number: served };
  };
  const answers = [1, 2, 3].map(() => send('c'));
  await expect.poll(() => served, { timeout: 20_000 }).toBe(before + 1);
  release.resolve();
  const bodies = (await Promise.all(answers)).map(({ body }) => body);
  expect([new Set(bodies).size, served]).toEqual([1, before + 1]);
});

it.each([
  ['a defect', new Error('x'), false],
  ['what can succeed later', new WrennError('invalid_state', { id: 'x', status: 'pausing', needed: 'paused' }), false],
  ['a rate limit', new WrennError('rate_limited'), false],
  ['what stays as it is', new WrennError('template_name_taken', { name: 'x' }), true],
])('keeps no answer that says %s', async (what, error, isKept) => {
  work = async () => {
    throw error;
  };
  const first = await send(what);
  work = async () => ({ ok: true });
  expect((await send(what)).statusCode).toBe(isKept ? first.statusCode : 201);
});

it('says so when the answer was too large to keep, and does nothing more', async () => {
  work = async () => ({ text: 'x'.repeat(2_000_000) });
  expect((await send('large')).statusCode).toBe(201);
  const count = served;
  const again = await send('large');
  expect([again.statusCode, again.json().error.reason, served]).toEqual([409, 'answer_not_kept', count]);
});

it('keeps nothing readable of requests and answers', async () => {
  work = async () => ({ key: 'very-secret' });
  await send('d', { password: 'also-secret' });
  const { rows } = await database.db.execute(sql`SELECT * FROM idempotent_requests`);
  expect(rows.length).toBeGreaterThan(0);
  expect(JSON.stringify(rows)).not.toMatch(/secret/);
});

it('takes over what another control plane was at when it ended, and waits for one that lives', async () => {
  const client = await database.connectClient();
  try {
    await client.query('SELECT pg_advisory_lock($1, $2)', [OWNER_LOCK_CLASS, 12]);
    await send('e');
    await database.db.execute(
      sql`UPDATE idempotent_requests SET status = NULL, finished_at = NULL, answer = NULL, runner = 12 WHERE key = 'e'`,
    );
    const count = served;
    const repeated = send('e');
    // A request that came later is answered: the repeated one had its chance.
    await send('f');
    await send('g');
    expect(served).toBe(count + 2);
    await client.query('SELECT pg_advisory_unlock($1, $2)', [OWNER_LOCK_CLASS, 12]);
    expect((await repeated).statusCode).toBe(201);
    expect(served).toBe(count + 3);
  } finally {
    await client.end();
  }
});

it('does not read an upload to compare it: its length tells it apart', async () => {
  const type = { 'content-type': 'application/octet-stream' };
  await send('upload', 'abc', '/things/1', type);
  expect((await send('upload', 'xyz', '/things/1', type)).headers['idempotency-replayed']).toBe('true');
  expect((await send('upload', 'abcd', '/things/1', type)).statusCode).toBe(409);
});

it('leaves routes alone that change nothing', async () => {
  const [one, two] = [await send('r', {}, '/read'), await send('r', {}, '/read')];
  expect(one.body).not.toBe(two.body);
});

it('refuses a key of no use', async () => {
  expect((await send('x'.repeat(256))).json().error.reason).toBe('invalid_request');
});

it('forgets after its time', async () => {
  await send('old');
  expect(await deleteRequestsBefore(database.db, new Date(Date.now() - 60_000))).toBe(0);
  expect(await deleteRequestsBefore(database.db, new Date(Date.now() + 1000))).toBeGreaterThan(0);
  expect((await send('old')).headers['idempotency-replayed']).toBeUndefined();
});
