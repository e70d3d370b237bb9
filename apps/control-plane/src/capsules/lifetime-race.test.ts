import { until } from '@wrenn/testing/until';
import { and, eq, type SQL, sql } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Db } from '../database/database.ts';
import { capsules } from '../database/schema.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

/** An idle capsule is watched for a while before it is ended. */
const PATIENCE_MS = 60_000;

vi.setConfig({ testTimeout: 120_000 });

let platform: TestPlatform;
let people: TestPeople;
beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const statusOf = async (id: string): Promise<string> => (await platform.call(`/v1/capsules/${id}`)).body.status;

interface Changes {
  readonly deadlineAt?: SQL;
  readonly timeoutSec?: number;
  readonly onTimeout?: 'pause';
}

/**
 * Makes a capsule and changes settings of it, which nobody can see before it is found to be at its end.
 *
 * @param settingsFor how it is made with that many seconds to live: more of them where it ended before the change
 */
async function changeAsItEnds(settingsFor: (seconds: number) => object, changes: Changes): Promise<string> {
  for (let seconds = 1; ; seconds *= 2) {
    const id = await platform.createCapsule(settingsFor(seconds));
    const ending = await people.db.transaction(async (tx) => {
      const isUp = and(eq(capsules.id, id), eq(capsules.status, 'running'));
      const { rowCount } = await tx.update(capsules).set(changes).where(isUp);
      if (rowCount === 0) return undefined;
      return until('somebody is about to end it', PATIENCE_MS, () => findBlockedBy(tx));
    });
    if (!ending) continue;
    await until('that has come to its end', async () => {
      const { rows } = await people.db.execute(sql`
        SELECT FROM pg_stat_activity WHERE pid = ${ending.pid} AND xact_start::text = ${ending.begun}`);
      return rows.length === 0;
    });
    return id;
  }
}

/** A transaction that waits for that one. */
async function findBlockedBy(tx: Db): Promise<{ pid: number; begun: string } | undefined> {
  const { rows: own } = await tx.execute<{ pid: number }>(sql`SELECT pg_backend_pid() AS pid`);
  const { rows } = await people.db.execute<{ pid: number; begun: string }>(sql`
    SELECT pid, xact_start::text AS begun FROM pg_stat_activity
    WHERE datname = current_database() AND ${own[0]?.pid} = ANY (pg_blocking_pids(pid))`);
  return rows[0];
}

describe('a capsule whose end comes in the moment in which its settings change', () => {
  it.each(['destroy', 'pause'])('runs on, where it was to %s, when its deadline was moved', async (on_timeout) => {
    const later = { deadlineAt: sql`now() + interval '1 hour'` };
    const id = await changeAsItEnds((deadline_sec) => ({ deadline_sec, on_timeout }), later);
    expect(await statusOf(id)).toBe('running');
  });

  it.each(['destroy', 'pause'])('runs on, where it was to %s, when its timeout was lengthened', async (on_timeout) => {
    const id = await changeAsItEnds((timeout_sec) => ({ timeout_sec, on_timeout }), { timeoutSec: 600 });
    expect(await statusOf(id)).toBe('running');
  });

  it('is paused at its deadline when it is to be destroyed no more, and that at once', async () => {
    const settingsFor = (deadline_sec: number) => ({ deadline_sec, on_timeout: 'destroy' });
    const id = await changeAsItEnds(settingsFor, { onTimeout: 'pause' });
    await until('it is paused', async () => {
      const status = await statusOf(id);
      expect(['running', 'pausing', 'paused']).toContain(status);
      return status === 'paused';
    });
  });
});
