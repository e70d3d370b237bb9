import { setTimeout as delay } from 'node:timers/promises';
import { startChildControlPlane } from '@wrenn/control-plane/testing/child-control-plane';
import { RedisServer } from '@wrenn/control-plane/testing/redis-server';
import { SmtpReceiver } from '@wrenn/control-plane/testing/smtp-receiver';
import { TestPlatform } from '@wrenn/control-plane/testing/test-platform';
import { until } from '@wrenn/testing/until';
import { Client } from 'pg';
import { describe, expect, it } from 'vitest';

/** Creates that go on at each control plane at the same time. */
const CLIENTS = 2;
const BEFORE_KILL = 3;
const AFTER_KILL = 4;
/** What a create takes at least, so that some are under way whenever it is killed. */
const CREATE_MS = 400;

interface Answer {
  readonly status: number;
  readonly id: string | undefined;
}

/** People who create capsules at one control plane, one after the other each, and sign up others meanwhile. */
class Load {
  readonly created: Answer[] = [];
  readonly signedUp: string[] = [];
  /** Requests that had no answer. */
  broken = 0;
  readonly #baseUrl: string;
  readonly #key: string;
  readonly #name: string;
  readonly #stop = new AbortController();
  readonly #done: Promise<unknown>;

  constructor(name: string, baseUrl: string, key: string) {
    this.#name = name;
    this.#baseUrl = baseUrl;
    this.#key = key;
    const creating = Array.from({ length: CLIENTS }, () => this.#repeat(() => this.#create()));
    this.#done = Promise.all([...creating, this.#repeat(() => this.#signUp())]);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #repeat(ask: () => Promise<void>): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await ask();
      } catch {
        this.broken += 1;
        return;
      }
    }
  }

  async #create(): Promise<void> {
    const answer = await this.#post('/v1/capsules', {});
    this.created.push({ status: answer.status, id: ((await answer.json()) as { id?: string }).id });
  }

  async #signUp(): Promise<void> {
    const email = `${this.#name}-${this.signedUp.length}@people.example`;
    const answer = await this.#post('/v1/auth/signup', { email, name: 'New', password: 'a long enough password' });
    expect(answer.status).toBe(201);
    this.signedUp.push(email);
    await delay(200);
  }

  #post(path: string, json: object): Promise<Response> {
    return fetch(`${this.#baseUrl}${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-api-key': this.#key },
      body: JSON.stringify(json),
    });
  }
}

async function ask<Row extends object>({ databaseUrl }: TestPlatform, sql: string): Promise<Row[]> {
  const client = new Client(databaseUrl);
  await client.connect();
  try {
    return (await client.query<Row>(sql)).rows;
  } finally {
    await client.end();
  }
}

describe.each(['PostgreSQL', 'Redis'])('a control plane that is killed under load, sharing by %s', (kind) => {
  it('leaves all that it began to another one', { timeout: 240_000 }, async () => {
    await using stack = new AsyncDisposableStack();
    const receiver = stack.use(await SmtpReceiver.start());
    const redis = kind === 'Redis' ? stack.use(await RedisServer.start()) : undefined;
    const settings = {
      ...receiver.environment,
      ...{ WRENN_RATE_LIMIT_FACTOR: '0', ...(redis ? { REDIS_URL: redis.url } : {}) },
    };
    const platform = stack.use(await TestPlatform.start(settings, { hostSilenceMs: 60_000 }));
    const child = stack.use(await startChildControlPlane(platform, settings));
    platform.host.beforeCreate = async () => delay(CREATE_MS);

    const doomed = new Load('doomed', child.baseUrl, platform.apiKey);
    const staying = new Load('staying', platform.baseUrl, platform.apiKey);
    await until(
      'both are at work',
      60_000,
      () => Math.min(doomed.created.length, staying.created.length) >= BEFORE_KILL,
    );
    await child.kill();
    const atKill = staying.created.length;
    await until('the other goes on', 60_000, () => staying.created.length >= atKill + AFTER_KILL);
    await Promise.all([doomed.stop(), staying.stop()]);

    // In flight on the one that was killed were as many requests as it had clients, at most.
    expect(doomed.broken).toBeLessThanOrEqual(CLIENTS + 1);
    expect(staying.broken).toBe(0);
    const answers = [...doomed.created, ...staying.created];
    expect(answers.filter(({ status }) => status !== 201)).toEqual([]);

    await until('every operation has ended', 60_000, async () => {
      return (await ask(platform, "SELECT 1 FROM operations WHERE state = 'running'")).length === 0;
    });
    const failed = await ask(platform, "SELECT error FROM operations WHERE state <> 'succeeded'");
    expect(failed).toEqual([]);
    const capsules = await ask<{ id: string; status: string }>(platform, 'SELECT id, status FROM capsules');
    expect(capsules.filter(({ status }) => status !== 'running')).toEqual([]);
    expect(capsules.map(({ id }) => id)).toEqual(expect.arrayContaining(answers.map(({ id }) => id)));
    expect(platform.host.vmIds().toSorted()).toEqual(capsules.map(({ id }) => id).toSorted());

    // Jobs of the dead one are noticed by their heartbeats.
    const people = [...doomed.signedUp, ...staying.signedUp];
    await until('all mail is there', 90_000, () => {
      const told = new Set(receiver.mails.flatMap(({ recipients }) => recipients));
      return people.every((email) => told.has(email));
    });
    const [crashed] = doomed.created;
    await platform.host.crash(crashed?.id ?? '');
    await until('what its host tells is heard', 60_000, async () => {
      return (await platform.call(`/v1/capsules/${crashed?.id}`)).body.status === 'error';
    });
  });
});
