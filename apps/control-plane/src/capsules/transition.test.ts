import { newId } from '@wrenn/protocol/ids';
import { CAPSULE_STATUSES, type CapsuleStatus } from '@wrenn/protocol/rest/capsule';
import { eq } from 'drizzle-orm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Database } from '../database/database.ts';
import { teams } from '../database/people-schema.ts';
import { capsules } from '../database/schema.ts';
import { ensureHostRow } from '../hosts/host-store.ts';
import { openTestDatabase } from '../testing/test-database.ts';
import { insertCapsule } from './capsule-store.ts';
import { isLegalMove, LostRaceError, transition, transitionWhen } from './transition.ts';

/** The state machine as the design says it, written out a second time. */
const LEGAL: ReadonlySet<string> = new Set([
  ...['pending>starting', 'starting>running'],
  ...['running>pausing', 'pausing>paused', 'pausing>running', 'paused>resuming', 'resuming>running', 'resuming>paused'],
  ...[
    'paused>hibernating',
    'hibernating>hibernated',
    'hibernating>paused',
    'hibernated>resuming',
    'resuming>hibernated',
  ],
  // What a host says of its own accord.
  ...['running>paused', 'missing>paused', 'forking>paused', 'paused>running', 'hibernated>running'],
  // A capsule that has slept outlives its microVM.
  ...['error>resuming', 'error>paused', 'error>running'],
  ...['running>forking', 'forking>running', 'running>missing', 'missing>running', 'stopping>stopped'],
  ...CAPSULE_STATUSES.filter((s) => s !== 'stopped' && s !== 'stopping').map((s) => `${s}>stopping`),
  ...CAPSULE_STATUSES.filter((s) => s !== 'stopped' && s !== 'stopping' && s !== 'error').map((s) => `${s}>error`),
]);
const MOVES = CAPSULE_STATUSES.flatMap((from) => CAPSULE_STATUSES.map((to) => [from, to] as const));

let database: Database;
let hostId: string;
beforeAll(async () => {
  database = await openTestDatabase();
  await database.db.insert(teams).values({ id: 'team-test', name: 'test', slug: 'test' });
  hostId = await ensureHostRow(database.db, 'https://test:1');
});
afterAll(() => database[Symbol.asyncDispose]());

/** A capsule that is put into a state without a transition, as only a test may. */
async function capsuleIn(status: CapsuleStatus) {
  const made = await insertCapsule(database.db, {
    id: newId('cl'),
    teamId: 'team-test',
    hostId,
    template: 'minimal',
    vcpus: 1,
    memoryMb: 512,
    diskRequestMb: 0,
    timeoutSec: 0,
    envs: {},
    labels: {},
    versions: {},
    accessToken: 'secret',
  });
  const [row] = await database.db.update(capsules).set({ status }).where(eq(capsules.id, made.id)).returning();
  if (!row) throw new Error('no row');
  return row;
}

describe('isLegalMove', () => {
  it('knows every move of the design and no other', () => {
    expect(MOVES.filter(([from, to]) => isLegalMove(from, to)).map((move) => move.join('>'))).toEqual(
      MOVES.map((move) => move.join('>')).filter((move) => LEGAL.has(move)),
    );
  });
});

describe('transition', () => {
  it('refuses every illegal move and leaves the row alone', async () => {
    const rows = new Map(
      await Promise.all(CAPSULE_STATUSES.map(async (status) => [status, await capsuleIn(status)] as const)),
    );
    for (const [from, to] of MOVES.filter((move) => !LEGAL.has(move.join('>')))) {
      const seen = rows.get(from);
      if (!seen) throw new Error(from);
      await expect(transition(database.db, seen, to), `${from} to ${to}`).rejects.toMatchObject({
        code: 'invalid_state',
      });
      const [now] = await database.db.select().from(capsules).where(eq(capsules.id, seen.id));
      expect(now).toEqual(seen);
    }
  });

  it('writes the status, a new version and the changes', async () => {
    const moved = await transition(database.db, await capsuleIn('running'), 'error', { statusReason: 'because' });
    expect(moved).toMatchObject({ status: 'error', version: 2, statusReason: 'because' });
    expect(await transition(database.db, moved, 'stopping')).toMatchObject({ version: 3, statusReason: null });
  });

  it('lets exactly one of several win that saw the same capsule', async () => {
    for (let round = 0; round < 10; round++) {
      const seen = await capsuleIn('running');
      const targets = ['pausing', 'forking', 'stopping', 'error', 'missing', 'pausing'] as const;
      const results = await Promise.allSettled(targets.map((to) => transition(database.db, seen, to)));
      expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      for (const result of results) {
        if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(LostRaceError);
      }
    }
  });

  it('is not fooled by a status that has come back', async () => {
    const seen = await capsuleIn('running');
    await transition(database.db, await transition(database.db, seen, 'pausing'), 'running');
    await expect(transition(database.db, seen, 'stopping')).rejects.toThrow(LostRaceError);
  });
});

describe('transitionWhen', () => {
  it('reads again until it wins or no longer wants to', async () => {
    const seen = await capsuleIn('running');
    const isUp = ({ status }: { status: CapsuleStatus }) => status === 'running';
    const results = await Promise.all([1, 2, 3, 4].map(() => transitionWhen(database.db, seen.id, isUp, 'missing')));
    expect(results.filter((row) => row !== undefined)).toHaveLength(1);
    expect(await transitionWhen(database.db, newId('cl'), () => true, 'error')).toBeUndefined();
  });
});
