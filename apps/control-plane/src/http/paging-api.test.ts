import { newId } from '@wrenn/protocol/ids';
import { sql } from 'drizzle-orm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { hosts } from '../database/host-schema.ts';
import { capsules, snapshots } from '../database/schema.ts';
import { PLATFORM_TEAM_ID } from '../teams/platform-team.ts';
import { operationsOf } from '../testing/api-operations.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

/** Written down every few seconds of what is in use, as the session of this walk is. */
const IN_MOTION = ['last_seen_at', 'last_used'];
/** Of each kind, at least. */
const ROWS = 5;

let platform: TestPlatform;
let people: TestPeople;
let teamId: string;
let token: string;
/** Paths of the lists that answer with a bare array and take a cursor, as the API describes itself. */
let described: string[];

beforeAll(async () => {
  platform = await TestPlatform.start();
  people = await TestPeople.of(platform);
  const user = await people.addUser({ isAdmin: true });
  teamId = await people.addTeam([{ user, role: 'owner' }]);
  token = await people.logIn(user, teamId);
  const [host] = await people.db.select({ id: hosts.id }).from(hosts);
  const hostId = host?.id ?? '';
  const shape = { template: 'minimal', vcpus: 1, memoryMb: 512, envs: {} };
  for (let row = 0; row < ROWS; row += 1) {
    await people.addMember(await people.addTeam(), user, 'member');
    await people.addMember(teamId, await people.addUser(), 'member');
    await people.addKey(teamId);
    await people.logIn(user, teamId);
    await create(`/v1/teams/${teamId}/invitations`, { role: 'member' });
    await create('/v1/hosts', { type: 'regular' });
    // What administrators list is the platform's own.
    for (const owner of [teamId, PLATFORM_TEAM_ID]) {
      const capsuleId = newId('cl');
      await people.db.insert(capsules).values({
        ...{ ...shape, id: capsuleId, teamId: owner, hostId, status: 'stopped', accessToken: 'secret', versions: {} },
        ...{ diskRequestMb: 0, timeoutSec: 0, labels: {} },
      });
      await people.db.insert(snapshots).values({
        ...{ ...shape, id: newId('snap'), teamId: owner, hostId, capsuleId, diskMb: 1024 },
        ...{ name: `at-${row}`, status: 'ready' },
      });
    }
  }
  // Several of one microsecond, and several of one millisecond.
  for (const table of ['team_members', 'api_keys', 'sessions', 'invitations', 'hosts', 'capsules', 'snapshots']) {
    await people.db.execute(sql`UPDATE ${sql.identifier(table)}
      SET created_at = '2026-01-01T00:00:00.000001Z'::timestamptz + floor(random() * 3) * interval '1 microsecond'`);
  }
  const { body: document } = await platform.call('/openapi.json');
  described = operationsOf(document)
    .filter(({ method, spec }) => method === 'GET' && spec.parameters.some(({ name }) => name === 'cursor'))
    .filter(({ spec }) => isArray(spec.responses['200']?.content['application/json']))
    .map(({ path }) => path);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

/** Only what the test has made: capsules that have ended, and no templates of the platform, which no page counts. */
function filterOf(path: string): string {
  if (path.endsWith('/capsules')) return 'status=all&';
  return path.endsWith('/snapshots') ? 'type=snapshot&' : '';
}

function isArray(content: unknown): boolean {
  return (content as { schema?: { type?: string } } | undefined)?.schema?.type === 'array';
}

async function create(path: string, json: object): Promise<void> {
  expect((await platform.call(path, { json, token })).status, path).toBe(201);
}

async function read(path: string): Promise<{ rows: object[]; next: string | undefined }> {
  const answer = await platform.fetch(path, { token });
  expect(answer.status, path).toBe(200);
  const next = /^<([^>]+)>; rel="next"$/.exec(answer.headers.get('link') ?? '')?.[1];
  expect(next === undefined, path).toBe(answer.headers.get('x-next-cursor') === null);
  const rows = ((await answer.json()) as object[]).map(({ ...row }) => {
    for (const name of IN_MOTION) Reflect.deleteProperty(row, name);
    return row;
  });
  return { rows, next };
}

it('every list holds each entry once over its pages, in its order, whatever their size', async () => {
  expect(described.length).toBeGreaterThanOrEqual(10);
  for (const path of described) {
    const all = `${path.replace('{id}', teamId)}?${filterOf(path)}`;
    const { rows } = await read(all);
    expect(rows.length, path).toBeGreaterThanOrEqual(ROWS);
    for (const limit of [1, 2, rows.length]) {
      const walked: object[] = [];
      let next: string | undefined = `${all}limit=${limit}`;
      while (next !== undefined) {
        const page = await read(next);
        expect(page.rows.length, next).toBeLessThanOrEqual(limit);
        walked.push(...page.rows);
        next = page.next;
      }
      expect(walked, `${path}, ${limit} at a time`).toEqual(rows);
    }
  }
});
