import { newId } from '@wrenn/protocol/ids';
import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import { eq } from 'drizzle-orm';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { channels } from '../database/channel-schema.ts';
import { hosts, hostTags } from '../database/host-schema.ts';
import { apiKeys, invitations, passkeys, sessions, teamMembers, teams } from '../database/people-schema.ts';
import { capsules } from '../database/schema.ts';
import { type ApiOperation, operationsOf } from '../testing/api-operations.ts';
import { SchemaArbitraries } from '../testing/schema-arbitrary.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform, TestSocket } from '../testing/test-platform.ts';
import type { Permission } from './permissions.ts';

/** Parameters that name no resource of anybody. */
const OF_NOBODY = '/providers/';
const NOT_OF_TEAMS: ReadonlySet<Permission> = new Set(['public', 'platform', 'host']);

let platform: TestPlatform;
let people: TestPeople;
let teamId: string;
let owner: { token: string };
/** Ids of a team's resources, by the part of the path that they follow. */
const resources = new Map<string, string>();
let operations: ApiOperation[];
let schemas: SchemaArbitraries;

beforeAll(async () => {
  platform = await TestPlatform.start({ WRENN_RATE_LIMIT_FACTOR: '0' });
  people = await TestPeople.of(platform);
  const { body: document } = await platform.call('/openapi.json');
  operations = operationsOf(document).filter(
    ({ path, permission }) => path.includes('{') && !NOT_OF_TEAMS.has(permission) && !path.includes(OF_NOBODY),
  );
  schemas = new SchemaArbitraries(document.components.schemas);
  teamId = await people.addTeam();
  const { user, token } = await people.logInNew(teamId, 'owner');
  owner = { token };
  const as = { 'x-api-key': token };
  const { body: capsule } = await platform.call('/v1/capsules', { json: {}, headers: as });
  const { body: snapshot } = await platform.call(`/v1/capsules/${capsule.id}/snapshots`, { json: {}, headers: as });
  // Guests here are programs of this machine: none is left that a mistake could reach.
  await platform.fetch(`/v1/capsules/${capsule.id}`, { method: 'DELETE', headers: as });
  const { body: invitation } = await platform.call(`/v1/teams/${teamId}/invitations`, { json: {}, headers: as });
  const [session] = await people.db.select().from(sessions).where(eq(sessions.userId, user.id));
  const channelId = newId('ch');
  await people.db.insert(channels).values({
    id: channelId,
    teamId,
    name: 'mine',
    provider: 'webhook',
    config: {},
    events: [],
    disabledAt: new Date(),
  });
  const passkeyId = newId('pk');
  await people.db.insert(passkeys).values({
    ...{ id: passkeyId, userId: user.id, name: 'mine', credentialId: passkeyId, publicKey: Buffer.from('x') },
    ...{ counter: 0, transports: [] },
  });
  const tags = ['mine'];
  await people.db.update(teams).set({ isByoc: true }).where(eq(teams.id, teamId));
  const { body: made } = await platform.call('/v1/hosts', { json: { type: 'byoc', tags }, headers: as });
  for (const [name, id] of Object.entries({
    capsules: capsule.id,
    snapshots: snapshot.name,
    'api-keys': (await people.addKey(teamId)).id,
    teams: teamId,
    members: user.id,
    invitations: invitation.id,
    channels: channelId,
    sessions: session?.id ?? '',
    passkeys: passkeyId,
    hosts: made.host.id,
    tags: tags[0] ?? '',
    // Of a capsule and of a channel that are looked for first.
    processes: '1',
    deliveries: newId('dlv'),
  })) {
    expect(id, name).toMatch(/./);
    resources.set(name, id);
  }
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

function pathOf({ path }: ApiOperation): string {
  return path.replaceAll(/([\w-]+)\/\{\w+\}/g, (_, name: string) => {
    const id = resources.get(name);
    if (id === undefined) throw new Error(`${path} needs a resource of the kind ${name} in this test`);
    return `${name}/${id}`;
  });
}

/** A request that is right but for whose it is. */
async function ask(operation: ApiOperation, headers: Record<string, string>): Promise<string> {
  const schema = operation.spec.requestBody?.content['application/json']?.schema;
  if (schema === undefined) return send(operation, headers, operation.path.endsWith('/write') ? anUpload() : undefined);
  const samples = fc.sample(schemas.of(schema), { seed: 1, numRuns: 30 }).map((each) => JSON.stringify(each));
  let answer = '';
  // The schemas of the document do not say all that is asked of a body; the plainest ones are right.
  for (const body of samples.sort((one, other) => one.length - other.length)) {
    answer = await send(operation, { ...headers, 'content-type': 'application/json' }, body);
    if (!answer.startsWith('400')) break;
  }
  return answer;
}

function anUpload(): FormData {
  const form = new FormData();
  form.append('path', 'nothing');
  form.append('file', new Blob(['x']));
  return form;
}

async function send(
  operation: ApiOperation,
  headers: Record<string, string>,
  body: string | FormData | undefined,
): Promise<string> {
  const url = `${platform.baseUrl}${pathOf(operation)}`;
  const answer = await fetch(url, { method: operation.method, headers, ...(body === undefined ? {} : { body }) });
  const text = await answer.text();
  if (answer.status < 400) return String(answer.status);
  return `${answer.status} ${errorResponseSchema.parse(JSON.parse(text)).error.code}`;
}

/** Everything that a foreign request could have changed. */
async function stateOf(): Promise<unknown> {
  const { db } = people;
  return {
    team: await db.select().from(teams).where(eq(teams.id, teamId)),
    members: await db.select().from(teamMembers).where(eq(teamMembers.teamId, teamId)),
    keys: await db.select().from(apiKeys).where(eq(apiKeys.teamId, teamId)),
    invitations: await db.select().from(invitations).where(eq(invitations.teamId, teamId)),
    channels: await db.select().from(channels).where(eq(channels.teamId, teamId)),
    capsules: await db.select().from(capsules).where(eq(capsules.teamId, teamId)),
    passkeys: await db.select().from(passkeys),
    hosts: await db.select().from(hosts).where(eq(hosts.teamId, teamId)),
    tags: await db.select().from(hostTags),
    revoked: (await db.select().from(sessions)).filter(({ revokedAt }) => revokedAt !== null),
  };
}

it('are not there for the credentials of another team', async () => {
  const foreign = await people.addTeam();
  const stranger = { authorization: `Bearer ${(await people.logInNew(foreign, 'owner')).token}` };
  const key = { 'x-api-key': (await people.addKey(foreign)).key };
  const before = await stateOf();
  const wrong: string[] = [];
  for (const operation of operations.filter(({ isSocket }) => !isSocket)) {
    for (const headers of [stranger, ...(operation.spec['x-wrenn-scope'] ? [key] : [])]) {
      const answer = await ask(operation, headers);
      if (answer !== '404 not_found') wrong.push(`${operation.id} with ${Object.keys(headers)}: ${answer}`);
    }
  }
  expect(wrong).toEqual([]);
  expect(await stateOf()).toEqual(before);
});

it('are there for their own team', async () => {
  const wrong: string[] = [];
  for (const operation of operations.filter(({ isSocket, method }) => method === 'GET' && !isSocket)) {
    // An ended capsule has no console and no processes.
    if (['getCapsuleLogs', 'listProcesses'].includes(operation.id)) continue;
    const answer = await ask(operation, { authorization: `Bearer ${owner.token}` });
    if (answer !== '200') wrong.push(`${operation.id}: ${answer}`);
  }
  expect(wrong).toEqual([]);
});

it('are not there for WebSockets of another team', async () => {
  const { key } = await people.addKey(await people.addTeam());
  const sockets = operations.filter(({ isSocket }) => isSocket);
  expect(sockets.length).toBeGreaterThan(2);
  for (const operation of sockets) {
    const url = `${platform.baseUrl.replace('http', 'ws')}${pathOf(operation)}`;
    const socket = new TestSocket(new WebSocket(url, { headers: { 'x-api-key': key } }));
    await socket.opened;
    socket.send({ type: 'start', cmd: 'true' });
    expect(await socket.next(), operation.id).toMatchObject({ type: 'error', error: { reason: 'capsule_not_found' } });
  }
});
