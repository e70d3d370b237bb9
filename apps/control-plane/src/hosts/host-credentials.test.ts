import { afterAll, beforeAll, expect, it } from 'vitest';
import { TestHosts } from '../testing/test-hosts.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';
import { findCredential, useCredential } from './host-credentials.ts';

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

it('of which a request reads that they are new just before others use and renew them end nothing', async () => {
  const token = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
  const hosts = new TestHosts(platform);
  const { body: made } = await platform.call('/v1/hosts', { json: { type: 'regular' }, token });
  const { body: first } = await hosts.register(made.registration_token);
  const { jti: id } = JSON.parse(Buffer.from(first.token.split('.')[1], 'base64url').toString());
  const read = await findCredential(people.db, { id, hostId: first.host_id });
  if (!read) throw new Error('there is no such set');
  expect(read.usedAt).toBeNull();

  expect((await hosts.heartbeat(first.host_id, first.token)).status).toBe(200);
  const { status, body: second } = await hosts.refresh(first.refresh_token);
  expect(status).toBe(200);
  await useCredential(people.db, read);
  expect((await hosts.heartbeat(first.host_id, second.token)).status).toBe(200);
  await expect(useCredential(people.db, read)).rejects.toMatchObject({ code: 'host_credential_refused' });
});
