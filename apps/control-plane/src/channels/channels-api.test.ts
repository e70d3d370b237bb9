import { createHmac } from 'node:crypto';
import { EVENT_TYPES } from '@wrenn/protocol/rest/channels';
import { until } from '@wrenn/testing/until';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { HttpReceiver, type ReceivedRequest, type Responder } from '../testing/http-receiver.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
let people: TestPeople;
let database: Client;
beforeAll(async () => {
  platform = await TestPlatform.start({ WRENN_OUTBOUND_ALLOW: '127.0.0.0/8' });
  people = await TestPeople.of(platform);
  database = new Client(platform.databaseUrl);
  await database.connect();
});
afterAll(async () => {
  await database?.end();
  await people?.[Symbol.asyncDispose]();
  await platform?.[Symbol.asyncDispose]();
});

const receivers: HttpReceiver[] = [];
afterEach(async () => {
  for (const { id } of (await platform.call('/v1/channels')).body) {
    await platform.fetch(`/v1/channels/${id}`, { method: 'DELETE' });
  }
  for (const each of receivers.splice(0)) await each[Symbol.asyncDispose]();
});

async function receiver(respond?: Responder): Promise<HttpReceiver> {
  const started = await HttpReceiver.start(respond);
  receivers.push(started);
  return started;
}

async function createWebhook(url: string, fields: object = {}) {
  const json = { name: 'hook', provider: 'webhook', config: { url }, events: EVENT_TYPES, ...fields };
  const { status, body } = await platform.call('/v1/channels', { json });
  expect(status, JSON.stringify(body)).toBe(201);
  return body;
}

/** As a receiver would, from what the documentation says. */
function isSigned({ headers, body }: ReceivedRequest, secret: string): boolean {
  const wanted = createHmac('sha256', secret).update(`${headers['x-wrenn-timestamp']}.${body}`).digest('hex');
  return headers['x-wrenn-signature'] === `sha256=${wanted}`;
}

const deliveriesOf = async (id: string) => (await platform.call(`/v1/channels/${id}/deliveries`)).body.items;
const told = (target: HttpReceiver) => target.received.map(({ body }) => JSON.parse(body));

describe('a channel', () => {
  it('is made, shown, changed and deleted, and its secret is shown once', async () => {
    const { url } = await receiver();
    const made = await createWebhook(`${url}/path?key=hush`, { name: 'My  Hook', events: ['capsule.created'] });
    expect(made).toMatchObject({
      ...{ id: expect.stringMatching(/^ch-/), name: 'my-hook', provider: 'webhook', events: ['capsule.created'] },
      ...{
        status: 'active',
        config: { url: `${url}/••••`, secret: '••••' },
        secret: expect.stringMatching(/^[0-9a-f]{64}$/),
      },
    });
    const { secret: _, ...shown } = made;
    expect((await platform.call('/v1/channels')).body).toEqual([shown]);
    expect((await platform.call(`/v1/channels/${made.id}`)).body).toEqual(shown);
    const json = { name: 'Other', events: ['host.up', 'host.up'] };
    const changed = await platform.call(`/v1/channels/${made.id}`, { method: 'PATCH', json });
    expect(changed.body).toMatchObject({ name: 'other', events: ['host.up'] });
    expect((await platform.fetch(`/v1/channels/${made.id}`, { method: 'DELETE' })).status).toBe(204);
    expect((await platform.call(`/v1/channels/${made.id}`)).body.error.code).toBe('not_found');
  });

  it('keeps nothing readable in the database', async () => {
    const { url } = await receiver();
    const { id, secret } = await createWebhook(`${url}/hush-hush`);
    const { rows } = await database.query('SELECT * FROM channels WHERE id = $1', [id]);
    const kept = JSON.stringify(rows);
    for (const hidden of [secret, 'hush-hush', '127.0.0.1']) expect(kept).not.toContain(hidden);
  });

  it('has a name of its own in its team', async () => {
    const { url } = await receiver();
    await createWebhook(url, { name: 'one' });
    const other = await createWebhook(url, { name: 'two' });
    const json = { name: 'ONE', provider: 'webhook', config: { url }, events: ['host.up'] };
    expect(await platform.call('/v1/channels', { json })).toMatchObject({
      status: 409,
      body: { error: { code: 'conflict' } },
    });
    const renamed = await platform.call(`/v1/channels/${other.id}`, { method: 'PATCH', json: { name: 'one' } });
    expect(renamed).toMatchObject({ status: 409 });
  });

  it.each([
    [{ provider: 'webhook', config: {} }, /config\.url/],
    [{ provider: 'webhook', config: { url: 'ftp://example.com' } }, /config\.url/],
    [{ provider: 'webhook', config: { url: 'https://example.com', other: 1 } }, /other/],
    [{ provider: 'webhook', config: { url: 'https://169.254.169.254/' } }, /not a public address/],
    [{ provider: 'webhook', config: { url: 'https://[::1]/' } }, /not a public address/],
    [{ provider: 'slack', config: { webhook_url: 'http://8.8.8.8/' } }, /only https/],
    [{ provider: 'telegram', config: { bot_token: '1:a/../b', chat_id: '1' } }, /config\.bot_token/],
    [
      { provider: 'matrix', config: { homeserver_url: 'https://example.com', access_token: 'a b', room_id: '!x:y' } },
      /token/,
    ],
    [{ provider: 'email', config: { to: 'nobody' } }, /config\.to/],
    [{ provider: 'pigeon', config: {} }, /provider/],
    [{ events: [] }, /events/],
    [{ events: ['channel.test'] }, /events/],
    [{ name: '../x' }, /name/],
  ])('is refused with a wrong field: %j', async (fields, problem) => {
    const json = {
      name: 'x',
      provider: 'webhook',
      config: { url: 'https://example.com' },
      events: ['host.up'],
      ...fields,
    };
    const { status, body } = await platform.call('/v1/channels', { json });
    expect(status).toBe(400);
    expect(body.error.message).toMatch(problem);
  });

  it('gets a new secret with a new config, keeps what is left out, and shows the secret', async () => {
    const target = await receiver();
    const made = await createWebhook(`${target.url}/kept`);
    const rotate = (json: object) => platform.call(`/v1/channels/${made.id}/config`, { method: 'PUT', json });
    const { body } = await rotate({});
    expect(body.secret).toMatch(/^[0-9a-f]{64}$/);
    expect(body.secret).not.toBe(made.secret);
    await platform.call(`/v1/channels/${made.id}/test`, { method: 'POST' });
    const request = await target.request(0);
    expect(request.path).toBe('/kept');
    expect([isSigned(request, body.secret), isSigned(request, made.secret)]).toEqual([true, false]);
    const own = await rotate({
      config: { url: `${target.url}/new`, secret: 'a secret'.repeat(4).replaceAll(' ', '-') },
    });
    expect(own.body.secret).toBeUndefined();
    await platform.call(`/v1/channels/${made.id}/test`, { method: 'POST' });
    const next = await target.request(1);
    expect([next.path, isSigned(next, 'a-secret'.repeat(4))]).toEqual(['/new', true]);
    expect((await rotate({ url: 'nonsense' })).status).toBe(400);
  });

  it('whose key was lost is shown, and mended by a whole config', async () => {
    const target = await receiver();
    const { id } = await createWebhook(target.url, { events: ['capsule.created'] });
    await database.query(
      `UPDATE channels SET config = '{"url": "00000000.AAAA", "secret": "00000000.AAAA"}' WHERE id = $1`,
      [id],
    );
    expect((await platform.call(`/v1/channels/${id}`)).body.config).toEqual({ url: '••••', secret: '••••' });
    const tested = await platform.call(`/v1/channels/${id}/test`, { method: 'POST' });
    expect(tested.body.error.message).toMatch(/cannot be decrypted/);
    const put = (json: object) => platform.call(`/v1/channels/${id}/config`, { method: 'PUT', json });
    expect((await put({})).status).toBe(400);
    expect((await put({ url: target.url })).body.config.url).toBe(`${target.url}/••••`);
    expect((await platform.call(`/v1/channels/${id}/test`, { method: 'POST' })).status).toBe(200);
  });

  it('belongs to its team, and to those who manage it', async () => {
    const { url } = await receiver();
    const { id } = await createWebhook(url);
    const foreign = await people.addTeam();
    const member = await people.logInNew(foreign, 'member');
    const admin = await people.logInNew(foreign, 'admin');
    const as = (token: string, path: string) =>
      fetch(`${platform.baseUrl}/v1/channels${path}`, { headers: { authorization: `Bearer ${token}` } });
    expect((await as(member.token, '')).status).toBe(403);
    expect((await as(admin.token, '')).status).toBe(200);
    expect((await as(admin.token, `/${id}`)).status).toBe(404);
    expect((await as(admin.token, `/${id}/deliveries`)).status).toBe(404);
  });

  it('leaves a trace of who changed it in the audit log, without what is in its config', async () => {
    const { url } = await receiver();
    const { id } = await createWebhook(`${url}/hush`);
    await platform.call(`/v1/channels/${id}/config`, { method: 'PUT', json: {} });
    await platform.fetch(`/v1/channels/${id}`, { method: 'DELETE' });
    const { rows } = await database.query('SELECT * FROM audit_log WHERE resource_id = $1 ORDER BY created_at', [id]);
    expect(rows.map(({ action }) => action)).toEqual(['create', 'rotate_config', 'delete']);
    expect(JSON.stringify(rows)).not.toContain('hush');
  });
});

describe('a webhook', () => {
  it('is told of the life of a capsule, in order, signed, by whom', async () => {
    const target = await receiver();
    const { id: channel, secret } = await createWebhook(target.url);
    const id = await platform.createCapsule({ metadata: { purpose: 'test' } });
    await platform.call(`/v1/capsules/${id}/pause`, { method: 'POST' });
    await platform.call(`/v1/capsules/${id}/resume`, { method: 'POST' });
    await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' });
    const wanted = ['created', 'running', 'paused', 'running', 'destroyed'].map((name) => `capsule.${name}`);
    await until('all is told', () => target.received.length >= wanted.length);
    expect(told(target).map(({ event }) => event)).toEqual(wanted);
    const { rows } = await database.query('SELECT id, name, team_id FROM api_keys');
    const [first] = told(target);
    expect(first).toEqual({
      event: 'capsule.created',
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      team_id: rows[0].team_id,
      actor: { type: 'api_key', id: rows[0].id, name: rows[0].name },
      resource: { id, type: 'capsule' },
      data: { template: 'minimal', metadata: { purpose: 'test' } },
      event_id: expect.stringMatching(/^evt-/),
      delivery_id: target.received[0]?.headers['x-wrenn-delivery'],
    });
    for (const body of told(target)) expect(body.actor.type).toBe('api_key');
    for (const request of target.received) {
      expect(isSigned(request, secret)).toBe(true);
      expect(Math.abs(Date.now() / 1000 - Number(request.headers['x-wrenn-timestamp']))).toBeLessThan(60);
    }
    const ids = target.received.map(({ headers }) => headers['x-wrenn-delivery']);
    expect(new Set(ids).size).toBe(wanted.length);
    const logged = await until('the last one is logged', async () => {
      const all = await deliveriesOf(channel);
      return all[0]?.status === 'delivered' && all;
    });
    expect(logged.map((each: { id: string }) => each.id)).toEqual(ids.toReversed());
    expect(logged[0]).toMatchObject({ attempts: [{ number: 1, status_code: 204, error: null }] });
  });

  it('is told of forks, snapshots, and what the platform does by itself', async () => {
    const target = await receiver();
    const id = await platform.createCapsule();
    await createWebhook(target.url);
    const { body } = await platform.call(`/v1/capsules/${id}/fork`, { json: { count: 2 } });
    const children = body.capsules.map((child: { id: string }) => child.id);
    await platform.call(`/v1/capsules/${id}/snapshots`, { json: { name: 'kept' } });
    await platform.fetch('/v1/snapshots/kept', { method: 'DELETE' });
    await platform.host.crash(id);
    const find = (event: string, resource?: string) =>
      told(target).find((each) => each.event === event && (resource === undefined || each.resource.id === resource));
    await until('the crash is told', () => find('capsule.error', id));
    expect(find('capsule.forked')).toMatchObject({ resource: { id }, data: { children }, actor: { type: 'api_key' } });
    for (const child of children) {
      expect(find('capsule.created', child)).toMatchObject({ data: { forked_from: id } });
      expect(find('capsule.running', child)).toMatchObject({ actor: { type: 'api_key' } });
    }
    expect(find('capsule.running', id)).toBeUndefined();
    expect(find('template.snapshot.created')).toMatchObject({ data: { name: 'kept', capsule_id: id } });
    expect(find('template.snapshot.deleted')).toMatchObject({ actor: { type: 'api_key' } });
    expect(find('capsule.error', id)).toMatchObject({
      actor: { type: 'system' },
      data: { reason: expect.any(String) },
    });
  });

  it('is told only what it subscribes to, and nothing while it is off', async () => {
    const [created, destroyed, off] = [await receiver(), await receiver(), await receiver()];
    await createWebhook(created.url, { name: 'a', events: ['capsule.created'] });
    await createWebhook(destroyed.url, { name: 'b', events: ['capsule.destroyed'] });
    const { id: silent } = await createWebhook(off.url, { name: 'c', events: ['capsule.created'] });
    await platform.call(`/v1/channels/${silent}`, { method: 'PATCH', json: { enabled: false } });
    const id = await platform.createCapsule();
    await platform.fetch(`/v1/capsules/${id}`, { method: 'DELETE' });
    await destroyed.request(0);
    await created.request(0);
    expect(told(created).map(({ event }) => event)).toEqual(['capsule.created']);
    expect(told(destroyed).map(({ event }) => event)).toEqual(['capsule.destroyed']);
    expect([off.received, await deliveriesOf(silent)]).toEqual([[], []]);
    const on = await platform.call(`/v1/channels/${silent}`, { method: 'PATCH', json: { enabled: true } });
    expect(on.body).toMatchObject({ status: 'active', disabled_reason: null });
    await platform.createCapsule();
    await off.request(0);
  });

  it('is told once more on request, under the same id, with the same body', async () => {
    const target = await receiver((request, response) => {
      response.writeHead(request.body.includes('created') && target.received.length === 1 ? 500 : 200).end();
    });
    const { id, secret } = await createWebhook(target.url, { events: ['capsule.created'] });
    await platform.createCapsule();
    const failed = await until('it has failed', async () =>
      (await deliveriesOf(id)).find((each: { attempts: unknown[] }) => each.attempts.length === 1),
    );
    expect(failed).toMatchObject({ status: 'pending', attempts: [{ status_code: 500, error: 'answered 500' }] });
    const waitMs = Date.parse(failed.next_attempt_at) - Date.parse(failed.attempts[0].started_at);
    expect(waitMs).toBeGreaterThan(5000);
    const again = await platform.call(`/v1/channels/${id}/deliveries/${failed.id}/redeliver`, { method: 'POST' });
    expect(again).toMatchObject({ status: 202, body: { id: failed.id, status: 'pending' } });
    await target.request(1);
    const [first, second] = target.received;
    expect(second?.headers['x-wrenn-delivery']).toBe(first?.headers['x-wrenn-delivery']);
    expect(second?.body).toBe(first?.body);
    expect(second && isSigned(second, secret)).toBe(true);
    const logged = await until('both are logged', async () =>
      (await deliveriesOf(id)).find((each: { status: string }) => each.status === 'delivered'),
    );
    expect(logged.attempts.slice(0, 2)).toMatchObject([{ status_code: 500 }, { status_code: 200 }]);
    expect(logged.next_attempt_at).toBeNull();
    expect((await platform.call(`/v1/channels/${id}/deliveries/dlv-x/redeliver`, { method: 'POST' })).status).toBe(404);
  });

  it('is switched off by a 410, and whoever manages the team can see why', async () => {
    const target = await receiver((_request, response) => response.writeHead(410).end('secret words'));
    const { id } = await createWebhook(target.url, { events: ['capsule.created'] });
    await platform.createCapsule();
    const off = await until('it is off', async () => {
      const { body } = await platform.call(`/v1/channels/${id}`);
      return body.status === 'disabled' && body;
    });
    expect(off.disabled_reason).toMatch(/410/);
    expect(JSON.stringify(await deliveriesOf(id))).not.toContain('secret words');
    const { rows } = await database.query("SELECT * FROM audit_log WHERE resource_id = $1 AND action = 'disable'", [
      id,
    ]);
    expect(rows).toMatchObject([{ actor_type: 'system', status: 'warning' }]);
    await platform.createCapsule();
    expect(target.received).toHaveLength(1);
  });
});

describe('a test', () => {
  it('says whether it was taken, before there is a channel and after', async () => {
    const target = await receiver();
    const test = (url: string) =>
      platform.call('/v1/channels/test', { json: { provider: 'webhook', config: { url } } });
    expect(await test(target.url)).toMatchObject({ status: 200, body: { status: 'ok' } });
    expect(told(target)[0]).toMatchObject({
      event: 'channel.test',
      actor: { type: 'api_key' },
      resource: { type: 'channel' },
    });
    target.respond = (_request, response) => response.writeHead(302, { location: 'http://169.254.169.254/' }).end();
    const refused = await test(target.url);
    expect(refused).toMatchObject({ status: 400, body: { error: { reason: 'delivery_failed' } } });
    expect(refused.body.error.message).toMatch(/redirects are not followed/);
    const { id } = await createWebhook(target.url);
    expect((await platform.call(`/v1/channels/${id}/test`, { method: 'POST' })).status).toBe(400);
    target.respond = (_request, response) => response.writeHead(200).end();
    expect((await platform.call(`/v1/channels/${id}/test`, { method: 'POST' })).status).toBe(200);
    expect(await deliveriesOf(id)).toMatchObject([
      { status: 'delivered', event: { type: 'channel.test' } },
      { status: 'failed', attempts: [{ status_code: 302 }] },
    ]);
  });

  it('goes to every address of a mailbox', async () => {
    const json = {
      name: 'mail',
      provider: 'email',
      config: { to: ['a@example.com', 'b@example.com'] },
      events: ['host.up'],
    };
    const { body } = await platform.call('/v1/channels', { json });
    expect(body.config).toEqual({ to: 'a@example.com,b@example.com' });
    expect((await platform.call(`/v1/channels/${body.id}/test`, { method: 'POST' })).status).toBe(200);
    const { rows } = await database.query("SELECT to_address, subject FROM mails WHERE kind = 'channel' ORDER BY 1");
    expect(rows.map(({ to_address }) => to_address)).toEqual(['a@example.com', 'b@example.com']);
    expect(rows[0].subject).toMatch(/the channel works/);
  });
});

it('is tested 30 times in 5 minutes at most', async () => {
  await using limited = await TestPlatform.start({
    WRENN_OUTBOUND_ALLOW: '127.0.0.0/8',
    WRENN_RATE_LIMIT_FACTOR: '0.1',
  });
  const target = await receiver();
  const json = { provider: 'webhook', config: { url: target.url } };
  const statuses: number[] = [];
  for (let n = 0; n < 4; n++) statuses.push((await limited.fetch('/v1/channels/test', { json })).status);
  expect([statuses, target.received.length]).toEqual([[200, 200, 200, 429], 3]);
});

describe('the log of deliveries', () => {
  it('is paged without gaps or doubles, newest first', async () => {
    const target = await receiver();
    const { id } = await createWebhook(target.url, { events: ['host.up'] });
    for (let n = 0; n < 5; n++) await platform.call(`/v1/channels/${id}/test`, { method: 'POST' });
    const all = (await deliveriesOf(id)).map((each: { id: string }) => each.id);
    expect(all).toHaveLength(5);
    const paged: string[] = [];
    for (let cursor = ''; ; ) {
      const { body } = await platform.call(`/v1/channels/${id}/deliveries?limit=2${cursor && `&cursor=${cursor}`}`);
      paged.push(...body.items.map((each: { id: string }) => each.id));
      if (body.next_cursor === null) break;
      cursor = body.next_cursor;
    }
    expect(paged).toEqual(all);
    expect((await platform.call(`/v1/channels/${id}/deliveries?cursor=x`)).status).toBe(400);
  });
});
