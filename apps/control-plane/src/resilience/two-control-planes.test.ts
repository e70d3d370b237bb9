import { until } from '@wrenn/testing/until';
import { Client } from 'pg';
import { describe, expect, it } from 'vitest';
import { startChildControlPlane } from '../testing/child-control-plane.ts';
import { HttpReceiver } from '../testing/http-receiver.ts';
import { SmtpReceiver } from '../testing/smtp-receiver.ts';
import { TestPlatform } from '../testing/test-platform.ts';

const PEOPLE = 12;
const CAPSULES = 8;

function post(baseUrl: string, path: string, json: object, key = ''): Promise<Response> {
  const headers = { 'content-type': 'application/json', ...(key ? { 'x-api-key': key } : {}) };
  return fetch(`${baseUrl}${path}`, { method: 'POST', headers, body: JSON.stringify(json) });
}

const person = (email: string) => ({ email, name: 'New', password: 'a long enough password' });

async function ask<Row extends object>(platform: TestPlatform, sql: string): Promise<Row[]> {
  const client = new Client(platform.databaseUrl);
  await client.connect();
  try {
    return (await client.query<Row>(sql)).rows;
  } finally {
    await client.end();
  }
}

describe('two control planes of one database', () => {
  it('mail and tell once', { timeout: 180_000 }, async () => {
    await using receiver = await SmtpReceiver.start();
    await using hook = await HttpReceiver.start();
    await using platform = await TestPlatform.start(
      { ...receiver.environment, WRENN_OUTBOUND_ALLOW: '127.0.0.0/8' },
      // As outside of tests: a busy machine is not a silent host.
      { hostSilenceMs: 15_000 },
    );
    await using other = await platform.startAnother();
    const bases = [platform.baseUrl, `http://127.0.0.1:${other.port}`];
    await until('both have their host', async () => {
      const answers = await Promise.all(bases.map((base) => fetch(`${base}/ready`)));
      return answers.every(({ ok }) => ok);
    });
    const json = { name: 'hook', provider: 'webhook', config: { url: hook.url }, events: ['capsule.created'] };
    expect((await platform.call('/v1/channels', { json })).status).toBe(201);

    const emails = Array.from({ length: PEOPLE }, (_, n) => `p${n}@people.example`);
    const answers = await Promise.all([
      ...emails.map((email, n) => post(bases[n % 2] ?? '', '/v1/auth/signup', person(email))),
      ...Array.from({ length: CAPSULES }, (_, n) => post(bases[n % 2] ?? '', '/v1/capsules', {}, platform.apiKey)),
    ]);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]));
    const capsules = (await Promise.all(answers.slice(PEOPLE).map((answer) => answer.json()))) as { id: string }[];

    await until('nothing is left to do', async () => {
      const [left] = await ask<{ jobs: number; deliveries: number }>(
        platform,
        `SELECT (SELECT count(*) FROM pgboss.job WHERE name = 'mail' AND state <> 'completed')::int AS jobs,
          (SELECT count(*) FROM deliveries WHERE status NOT IN ('delivered', 'failed'))::int AS deliveries`,
      );
      return left?.jobs === 0 && left.deliveries === 0 && hook.received.length >= CAPSULES;
    });
    expect(receiver.mails.map(({ recipients }) => recipients).sort()).toEqual(emails.map((email) => [email]).sort());
    const told = hook.received.map(({ body }) => (JSON.parse(body) as { resource: { id: string } }).resource.id);
    expect(told.sort()).toEqual(capsules.map(({ id }) => id).sort());
  });

  it('go on with what one that is killed began', { timeout: 180_000 }, async () => {
    await using platform = await TestPlatform.start();
    await using child = await startChildControlPlane(platform);
    let creates = 0;
    platform.host.beforeCreate = async (_request, signal) => {
      creates += 1;
      // The first stays without an answer, until who asked for it is gone.
      if (creates === 1) await new Promise((resolve) => signal.addEventListener('abort', resolve));
    };
    const answer = post(child.baseUrl, '/v1/capsules', {}, platform.apiKey).then(
      () => 'answered',
      () => 'cut off',
    );
    await until('it is being started', () => creates === 1);
    await child.kill();
    expect(await answer).toBe('cut off');
    await until('the other one started it', async () => {
      const { body } = await platform.call('/v1/capsules');
      return body.length === 1 && body[0].status === 'running';
    });
    expect(platform.host.vmIds()).toHaveLength(1);
  });
});
