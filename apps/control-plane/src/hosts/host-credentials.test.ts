import { eq, sql } from 'drizzle-orm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { hosts as hostRows } from '../database/host-schema.ts';
import { untilBlocked } from '../testing/blocked.ts';
import { TestHosts } from '../testing/test-hosts.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { endCredentials, findCredential, useCredential } from './host-credentials.ts';

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

/** A host that has just registered, and what it was given. */
async function registered(): Promise<{ readonly hosts: TestHosts; readonly first: Record<string, string> }> {
  const token = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
  const hosts = new TestHosts(platform);
  const { body: made } = await platform.call('/v1/hosts', { json: { type: 'regular' }, token });
  const { body: first } = await hosts.register(made.registration_token, { address: undefined });
  return { hosts, first };
}

function idOf({ token }: Record<string, string>): string {
  return JSON.parse(Buffer.from(token?.split('.')[1] ?? '', 'base64url').toString()).jti;
}

it('of which a request reads that they are new just before others use and renew them end nothing', async () => {
  const { hosts, first } = await registered();
  const { host_id: hostId = '', refresh_token: refreshToken = '', token = '' } = first;
  const read = await findCredential(people.db, { id: idOf(first), hostId });
  if (!read) throw new Error('there is no such set');
  expect(read.usedAt).toBeNull();

  expect((await hosts.heartbeat(hostId, token)).status).toBe(200);
  const { status, body: second } = await hosts.refresh(refreshToken);
  expect(status).toBe(200);
  await useCredential(people.db, read);
  expect((await hosts.heartbeat(hostId, second.token)).status).toBe(200);
  await expect(useCredential(people.db, read)).rejects.toMatchObject({ code: 'host_credential_refused' });
});

it('of which another one was used while a transaction waited refuse to be used by it', async () => {
  const { hosts, first } = await registered();
  const { host_id: hostId = '', refresh_token: refreshToken = '' } = first;
  const [second, third] = [await hosts.refresh(refreshToken), await hosts.refresh(refreshToken)];
  await people.db.transaction(async (tx) => {
    await tx.execute(sql`SELECT now()`);
    expect((await hosts.heartbeat(hostId, second.body.token)).status).toBe(200);
    await expect(useCredential(tx, { id: idOf(third.body), hostId })).rejects.toMatchObject({
      code: 'host_credential_refused',
    });
  });
});

it('that end while a refresh with them waits are not refreshed', async () => {
  const { hosts, first } = await registered();
  const { host_id: hostId = '', refresh_token: refreshToken = '', token = '' } = first;
  expect((await hosts.heartbeat(hostId, token)).status).toBe(200);
  const { refreshed } = await people.db.transaction(async (tx) => {
    await tx.select().from(hostRows).where(eq(hostRows.id, hostId)).for('no key update');
    const begun = hosts.refresh(refreshToken);
    await untilBlocked(people.db, 1, 'for no key update');
    await endCredentials(tx, hostId);
    return { refreshed: begun };
  });
  const { status, body } = await refreshed;
  expect([status, body.error.reason]).toEqual([401, 'host_credential_refused']);
});
