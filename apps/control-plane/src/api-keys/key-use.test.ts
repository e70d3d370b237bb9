import { until } from '@wrenn/testing/until';
import { eq, isNotNull } from 'drizzle-orm';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { apiKeys } from '../database/people-schema.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { KeyUse } from './key-use.ts';

const log = pino({ level: 'silent' });

it('writes when keys were used for all of them together, the later time of several control planes', async () => {
  await using platform = await TestPlatform.start();
  await using people = await TestPeople.of(platform);
  const { db } = people;
  const teamId = await people.addTeam();
  const [a, b, unused] = await Promise.all([1, 2, 3].map(() => people.addKey(teamId)));
  const lastUse = async (id = '') =>
    (await db.select().from(apiKeys).where(eq(apiKeys.id, id)))[0]?.lastUsedAt?.getTime();

  const startedAt = Date.now();
  {
    await using earlier = new KeyUse(db, log, 60_000);
    await using later = new KeyUse(db, log, 60_000);
    earlier.note(a?.id ?? '');
    await until('the clock goes on', () => Date.now() > startedAt + 5);
    later.note(a?.id ?? '');
    later.note(b?.id ?? '');
    expect(await lastUse(a?.id)).toBeUndefined();
    await later.flush();
    const written = await lastUse(a?.id);
    expect(written).toBeGreaterThanOrEqual(startedAt + 5);
    await earlier.flush();
    expect(await lastUse(a?.id)).toBe(written);
    expect(await lastUse(b?.id)).toBeGreaterThanOrEqual(written ?? Number.POSITIVE_INFINITY);
    earlier.note('key-that-is-gone');
  }
  expect(await lastUse(unused?.id)).toBeUndefined();

  // Requests are noted, and a control plane that stops writes what it noted.
  await platform.fetch('/v1/capsules', { headers: { 'x-api-key': unused?.key ?? '' } });
  await platform.stopControlPlane();
  expect(await lastUse(unused?.id)).toBeGreaterThanOrEqual(startedAt);
});

it('keeps what it could not write for the next time', async () => {
  await using platform = await TestPlatform.start();
  await using people = await TestPeople.of(platform);
  const { id } = await people.addKey(await people.addTeam());
  const broken = { execute: () => Promise.reject(new Error('no database')) };
  let isBroken = true;
  const db = new Proxy(people.db, {
    get: (target, name) => Reflect.get(isBroken && name === 'execute' ? broken : target, name),
  });
  await using use = new KeyUse(db, log, 60_000);
  use.note(id);
  await expect(use.flush()).rejects.toThrow('no database');
  isBroken = false;
  await use.flush();
  const [row] = await people.db.select().from(apiKeys).where(eq(apiKeys.id, id));
  expect(row?.lastUsedAt).toBeInstanceOf(Date);
});

it('does not wait for keys that somebody else has, and writes them the next time', async () => {
  await using platform = await TestPlatform.start();
  await using people = await TestPeople.of(platform);
  const teamId = await people.addTeam();
  const [held, free] = [await people.addKey(teamId), await people.addKey(teamId)];
  const usedIds = async () =>
    (await people.db.select().from(apiKeys).where(isNotNull(apiKeys.lastUsedAt))).map(({ id }) => id).sort();
  await using use = new KeyUse(people.db, log, 60_000);
  for (const { id } of [held, free]) use.note(id);
  use.note('key-that-is-gone');
  await people.db.transaction(async (tx) => {
    await tx.select().from(apiKeys).where(eq(apiKeys.id, held.id)).for('no key update');
    await use.flush();
  });
  expect(await usedIds()).toEqual([free.id]);
  await use.flush();
  expect(await usedIds()).toEqual([held.id, free.id].sort());
});
