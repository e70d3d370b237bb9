import { readFile, stat } from 'node:fs/promises';
import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import { sql } from 'drizzle-orm';
import { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
beforeAll(async () => {
  platform = await TestPlatform.start();
});
afterAll(() => platform[Symbol.asyncDispose]());

const post = (body: string, type = 'application/json') =>
  platform.call('/v1/capsules', { method: 'POST', body, headers: { 'content-type': type } });

describe('the API key', () => {
  it('is in a file that only its owner reads, and in the database only as a hash', async () => {
    expect((await stat(platform.apiKeyFile)).mode & 0o777).toBe(0o600);
    const key = (await readFile(platform.apiKeyFile, 'utf8')).trim();
    expect(key).toMatch(/^wrn_[0-9a-f]{40}$/);
    const client = new Client(platform.databaseUrl);
    await client.connect();
    const { rows } = await client.query('SELECT * FROM api_keys');
    await client.end();
    expect(rows).toHaveLength(1);
    expect(JSON.stringify(rows)).not.toContain(key.slice(10));
  });

  it('opens in both spellings, and as a bearer token', async () => {
    const key = platform.apiKey;
    for (const headers of [
      { 'x-api-key': key },
      { 'x-api-key': key.replace('wrn_', 'e2b_') },
      { authorization: `Bearer ${key}` },
    ]) {
      expect((await fetch(`${platform.baseUrl}/v1/capsules`, { headers })).status).toBe(200);
    }
  });

  it.each([
    {},
    { 'x-api-key': '' },
    { 'x-api-key': 'nonsense' },
    { 'x-api-key': `wrn_${'0'.repeat(40)}` },
    { authorization: 'Basic Zm9v' },
  ])('is missed in %j', async (headers) => {
    const answer = await fetch(`${platform.baseUrl}/v1/capsules`, { headers: headers as Record<string, string> });
    expect(answer.status).toBe(401);
    expect(errorResponseSchema.parse(await answer.json()).error).toMatchObject({ code: 'unauthorized' });
  });
});

describe('errors', () => {
  it.each([
    ['malformed JSON', () => post('{"vcpus":'), 400, 'invalid_request'],
    ['JSON of many levels', () => post('['.repeat(101) + ']'.repeat(101)), 400, 'invalid_request'],
    ['JSON that is no object', () => post('[1]'), 400, 'invalid_request'],
    ['a field of the wrong type', () => post('{"vcpus":"many"}'), 400, 'invalid_request'],
    ['poison for prototypes', () => post('{"__proto__":{"vcpus":1}}'), 400, 'invalid_request'],
    ['another content type', () => post('vcpus=1', 'application/x-www-form-urlencoded'), 400, 'invalid_request'],
    ['a body over the limit', () => post(`"${'x'.repeat(9_000_000)}"`), 413, 'too_large'],
    ['an unknown route', () => platform.call('/v1/nowhere'), 404, 'not_found'],
    ['an unknown capsule', () => platform.call('/v1/capsules/cl-0000000000000000000000000'), 404, 'capsule_not_found'],
    ['an id of no form', () => platform.call("/v1/capsules/';--"), 404, 'capsule_not_found'],
    ['an unknown state', () => platform.call('/v1/capsules?status=happy'), 400, 'invalid_request'],
  ])('for %s have the form of the catalogue', async (_, send, status, reason) => {
    const answer = await send();
    expect(answer.status).toBe(status);
    const { error } = errorResponseSchema.parse(answer.body);
    expect(error).toMatchObject({ reason, request_id: expect.stringMatching(/^req-/) });
    expect(error.message).not.toMatch(/\{\w+\}|\/work|node_modules| at /);
  });
});

describe('every answer', () => {
  it('has a request id: the given one where it is usable', async () => {
    const idFor = async (given: string) =>
      (await platform.fetch('/health', { headers: { 'x-request-id': given } })).headers.get('x-request-id');
    expect(await idFor('trace-7')).toBe('trace-7');
    expect(await idFor('no good')).toMatch(/^req-/);
  });
});

describe('/health and /ready', () => {
  it('are open and tell the truth', async () => {
    expect(await (await fetch(`${platform.baseUrl}/health`)).json()).toMatchObject({ status: 'ok' });
    expect(await (await fetch(`${platform.baseUrl}/ready`)).json()).toMatchObject({
      ready: true,
      checks: {
        server: { ok: true },
        database: { ok: true },
        migrations: { ok: true, detail: expect.stringMatching(/^version (\d+) of \1$/) },
        host: { ok: true, detail: '1 online' },
      },
    });
  });

  it('tell of a schema that is not there', async () => {
    await using people = await TestPeople.of(platform);
    const { rows } = await people.db.execute(sql`TABLE schema_migrations`);
    const newest = rows.length;
    const checked = async () => (await platform.call('/ready')).body;
    await people.db.execute(sql`ALTER TABLE schema_migrations RENAME TO schema_elsewhere`);
    expect(await checked()).toMatchObject({
      ready: false,
      checks: { database: { ok: true }, migrations: { ok: false } },
    });
    await people.db.execute(sql`ALTER TABLE schema_elsewhere RENAME TO schema_migrations`);
    expect(await checked()).toMatchObject({ ready: true });
    // Of a newer control plane that is being rolled out.
    const moveNewest = (by: number) =>
      people.db.execute(sql`UPDATE schema_migrations SET version = version + ${by} WHERE version >= ${newest - 1}`);
    await moveNewest(2);
    expect(await checked()).toMatchObject({ ready: true });
    await people.db.execute(sql`DELETE FROM schema_migrations WHERE version >= ${newest - 1}`);
    const detail = `version ${newest - 2} of ${newest}`;
    expect(await checked()).toMatchObject({ ready: false, checks: { migrations: { ok: false, detail } } });
  });
});

describe('the reference', () => {
  it('is a page that loads nothing from elsewhere', async () => {
    const page = await fetch(`${platform.baseUrl}/docs/`);
    expect(page.status).toBe(200);
    const html = await page.text();
    expect([...html.matchAll(/(?:src|href)="(https?:)?\/\//g)]).toEqual([]);
    const script = /src="([^"]+)"/.exec(html)?.[1] ?? '';
    const answer = await fetch(new URL(script, page.url));
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, expect.stringContaining('javascript')]);
  });
});

describe('/v1/capsules/{id}/ping', () => {
  it('counts the capsule as used', async () => {
    const id = await platform.createCapsule();
    expect((await platform.fetch(`/v1/capsules/${id}/ping`, { method: 'POST' })).status).toBe(204);
  });
});
