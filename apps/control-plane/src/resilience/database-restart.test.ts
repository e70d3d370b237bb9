import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { until } from '@wrenn/testing/until';
import { Client } from 'pg';
import { describe, expect, it } from 'vitest';
import { OWNER_LOCK_CLASS } from '../operations/operation-store.ts';
import { findPostmaster } from '../postgres/postmaster.ts';
import { DebianPostgres, findDebianPostgres, type StopMode } from '../testing/debian-postgres.ts';
import { SmtpReceiver } from '../testing/smtp-receiver.ts';
import { TestPlatform } from '../testing/test-platform.ts';

const OUTAGE_MS = 1500;
const LOAD_BEFORE_MS = 600;
/** As outside of tests: a busy machine is not a silent host. */
const HOST_SILENCE_MS = 15_000;

interface Answer {
  readonly what: string;
  readonly status: number;
  readonly reason: string | undefined;
  readonly retryAfter: string | null;
  readonly id: string | undefined;
}

/** Asks one thing after the other until told to stop. */
class Load {
  readonly answers: Answer[] = [];
  readonly broken: unknown[] = [];
  readonly #platform: TestPlatform;
  readonly #stop = new AbortController();
  #done: Promise<unknown> = Promise.resolve();

  constructor(platform: TestPlatform) {
    this.#platform = platform;
  }

  start(): void {
    const credentials = { email: 'nobody@people.example', password: 'wrong password' };
    this.#done = Promise.all([
      this.#repeat('list', () => this.#platform.fetch('/v1/capsules')),
      this.#repeat('create', () => this.#platform.fetch('/v1/capsules', { json: {} })),
      this.#repeat('key', () => this.#platform.fetch('/v1/capsules/cl-0000000000000000000000000')),
      this.#repeat('login', () => this.#platform.fetch('/v1/auth/login', { json: credentials })),
    ]);
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #repeat(what: string, ask: () => Promise<Response>): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        const response = await ask();
        const body = (await response.json()) as { id?: string; error?: { reason: string } };
        this.answers.push({
          what,
          status: response.status,
          reason: body.error?.reason,
          retryAfter: response.headers.get('retry-after'),
          id: body.id,
        });
      } catch (error) {
        this.broken.push(error);
      }
      await delay(10);
    }
  }
}

/** Restarts the database while requests go on, and looks at what they were answered. */
async function restartUnderLoad(platform: TestPlatform, restart: () => Promise<void>): Promise<void> {
  await platform.createCapsule();
  const load = new Load(platform);
  load.start();
  await delay(LOAD_BEFORE_MS);
  const refusedBefore = load.answers.filter(({ status }) => status >= 500);
  await restart();
  await until('everything is answered again', () => {
    const lately = load.answers.slice(-12);
    return new Set(lately.map(({ what }) => what)).size === 4 && lately.every(({ status }) => status < 500);
  });
  await load.stop();

  expect(refusedBefore).toEqual([]);
  expect(load.broken).toEqual([]);
  const refused = load.answers.filter(({ status }) => status >= 500);
  expect(refused.length).toBeGreaterThan(0);
  for (const { what, status, reason, retryAfter } of refused) {
    // Until what hosts tell can be recorded again, there is none for a new capsule.
    const reasons = ['database_unavailable', ...(what === 'create' ? ['no_hosts_available'] : [])];
    expect({ status, reason }).toEqual({ status: 503, reason: expect.toBeOneOf(reasons) });
    expect(Number(retryAfter)).toBeGreaterThan(0);
  }
  for (const { what, id } of load.answers.filter(({ status }) => status === 201)) {
    const { status, body } = await platform.call(`/v1/capsules/${id}`);
    expect({ what, status, state: body.status }).toEqual({ what, status: 200, state: 'running' });
  }
}

/** Mail needs jobs, jobs hear of work by LISTEN, and the create needs the owner's session. */
async function expectAllWorks(platform: TestPlatform, receiver: SmtpReceiver): Promise<void> {
  const email = `new-${performance.now()}@people.example`;
  const { status } = await platform.call('/v1/auth/signup', {
    json: { email, name: 'New', password: 'a long enough password' },
  });
  expect(status).toBeLessThan(300);
  await receiver.take(email);
  await platform.createCapsule();
  expect((await platform.fetch('/ready')).status).toBe(200);
  expect(await (await platform.fetch('/metrics')).text()).toContain('wrenn_');
}

/** Whether a control plane holds the lock that says whose operations are in good hands. */
async function isOwnerPresent(url: string): Promise<boolean> {
  const client = new Client(url);
  await client.connect();
  try {
    const { rows } = await client.query(
      `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid::bigint = $1`,
      [OWNER_LOCK_CLASS],
    );
    return rows.length > 0;
  } finally {
    await client.end();
  }
}

describe.skipIf(!findDebianPostgres())('a restart of the PostgreSQL of DATABASE_URL under load', () => {
  it.each<StopMode>(['fast', 'immediate'])('is survived: %s', { timeout: 180_000 }, async (mode) => {
    await using server = await DebianPostgres.start();
    await using receiver = await SmtpReceiver.start();
    await using platform = await TestPlatform.start(receiver.environment, {
      databaseUrl: server.url,
      hostSilenceMs: HOST_SILENCE_MS,
    });
    await expectAllWorks(platform, receiver);
    await restartUnderLoad(platform, async () => {
      await server.stop(mode);
      await delay(OUTAGE_MS);
      await server.start();
    });
    await expectAllWorks(platform, receiver);
    await until('the lock is held again', () => isOwnerPresent(server.url));
  });
});

describe('a stop of the embedded PostgreSQL under load', () => {
  it.each(['SIGINT', 'SIGQUIT'] as const)('is survived: %s', { timeout: 180_000 }, async (signal) => {
    await using receiver = await SmtpReceiver.start();
    await using platform = await TestPlatform.start(receiver.environment, {
      databaseUrl: undefined,
      hostSilenceMs: HOST_SILENCE_MS,
    });
    const data = join(dirname(platform.apiKeyFile), 'postgres', 'data');
    await expectAllWorks(platform, receiver);
    await restartUnderLoad(platform, async () => {
      const before = await findPostmaster(data);
      if (!before) throw new Error('PostgreSQL does not run');
      process.kill(before.pid, signal);
      // Nobody but the control plane starts it again.
      await until('another server is ready', async () => {
        const now = await findPostmaster(data);
        return now?.ready && now.pid !== before.pid;
      });
    });
    await expectAllWorks(platform, receiver);
  });
});
