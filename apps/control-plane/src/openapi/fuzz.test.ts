import { request as send } from 'node:http';
import { text } from 'node:stream/consumers';
import { ERROR_CATALOGUE, type ErrorCode } from '@wrenn/protocol/errors';
import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import { until } from '@wrenn/testing/until';
import { eq } from 'drizzle-orm';
import fc from 'fast-check';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { teamMembers, teams, users } from '../database/people-schema.ts';
import { type ApiOperation, type ApiParameter, operationsOf } from '../testing/api-operations.ts';
import { SchemaArbitraries } from '../testing/schema-arbitrary.ts';
import { TestPeople, type TestUser } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

const SEED = Number(process.env.FUZZ_SEED ?? 20_260_101);
/** For each operation, as each of the people below. */
const RUNS = Number(process.env.FUZZ_RUNS ?? 12);
const ANSWER_TIMEOUT_MS = 30_000;

interface Sent {
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: Buffer | undefined;
}

interface Person {
  readonly user: TestUser;
  readonly role: 'member' | 'owner' | undefined;
}

let platform: TestPlatform;
let people: TestPeople;
let teamId: string;
let operations: ApiOperation[];
let schemas: SchemaArbitraries;
let ids: string[];
const persons = new Map<string, Person>();
const logged: string[] = [];

beforeAll(async () => {
  const log = pino({ level: 'error' }, { write: (line: string) => logged.push(line) });
  platform = await TestPlatform.start({ WRENN_RATE_LIMIT_FACTOR: '0' }, { log });
  people = await TestPeople.of(platform);
  const { body: document } = await platform.call('/openapi.json');
  operations = operationsOf(document);
  schemas = new SchemaArbitraries(document.components.schemas);
  teamId = await people.addTeam();
  for (const role of ['member', 'owner'] as const) {
    persons.set(role, { user: (await people.logInNew(teamId, role)).user, role });
  }
  persons.set('administrator of the platform', { user: await people.addUser({ isAdmin: true }), role: undefined });
  const { id: keyId, key } = await people.addKey(teamId);
  const { body: capsule } = await platform.call('/v1/capsules', { json: {}, headers: { 'x-api-key': key } });
  await platform.fetch(`/v1/capsules/${capsule.id}`, { method: 'DELETE', headers: { 'x-api-key': key } });
  ids = [teamId, keyId, capsule.id, ...[...persons.values()].map(({ user }) => user.id)];
  // Guests here are programs of this machine: without a host no request, whatever it holds, reaches or starts one.
  await platform.host.goSilent();
  await until('the host is gone', async () => !(await platform.fetch('/ready')).ok);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});

const ODD_TEXTS = [
  '',
  ' ',
  '\0',
  'a\0b',
  '\ud800',
  '\udfff\ud800',
  '\u202e\u0000\uffff',
  "'; DROP TABLE teams; --",
  '../../etc/passwd',
  '%00',
  '{{7*7}}',
  'x'.repeat(5000),
  '🦀'.repeat(300),
  '9'.repeat(400),
  '1e999',
  '-0',
  'null',
  '[object Object]',
  '__proto__',
];
const oddText = fc.oneof(
  fc.constantFrom(...ODD_TEXTS),
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.string({ maxLength: 30 }),
);
const oddValue: fc.Arbitrary<unknown> = fc.oneof(
  oddText,
  fc.constantFrom(null, true, -1, 0, 0.5, 2 ** 31, 2 ** 53, -(2 ** 63), 1e308, [], {}, [[]], [null]),
  fc.jsonValue({ maxDepth: 3, noUnicodeString: false }),
);

const deep = (open: string, close: string, depth: number) => `${open.repeat(depth)}1${close.repeat(depth)}`;
/** Bodies that are no request, whatever the operation. */
const ODD_BODIES = [
  '',
  '{',
  '{"',
  '[]',
  'null',
  '1e999',
  '"\\ud800"',
  '{"__proto__":{"a":1}}',
  '{"constructor":{"prototype":{"a":1}}}',
  '{"a":1,"a":2}',
  '\ufeff{}',
  deep('[', ']', 20_000),
  deep('{"a":', '}', 5000),
  `{"name":"${'x'.repeat(1_000_000)}"}`,
  `{${Array.from({ length: 20_000 }, (_, index) => `"k${index}":${index}`).join()}}`,
].map((body) => Buffer.from(body));

const TYPES = [
  'application/json',
  'application/json; charset=utf-16',
  'application/json; charset=nonsense',
  'APPLICATION/JSON',
  'text/plain',
  'application/xml',
  'application/x-www-form-urlencoded',
  'application/octet-stream',
  'multipart/form-data',
  'multipart/form-data; boundary=x',
  'nonsense',
  ';',
  '/',
];
const headerText = fc.string({
  unit: fc
    .integer({ min: 0x20, max: 0xff })
    .filter((code) => code < 0x7f || code > 0x9f)
    .map((code) => String.fromCharCode(code)),
  maxLength: 300,
});
const oddHeaders = fc.record(
  {
    'idempotency-key': headerText,
    'x-request-id': headerText,
    accept: headerText,
    'accept-encoding': headerText,
    cookie: headerText,
    range: headerText,
    'if-none-match': headerText,
    'user-agent': headerText,
    'x-forwarded-for': headerText,
    origin: headerText,
  },
  { requiredKeys: [] },
);

function bodyFor({ spec }: ApiOperation): fc.Arbitrary<{ body: Buffer | undefined; type: string | undefined }> {
  const [[type, { schema }] = ['application/json', { schema: {} }]] = Object.entries(spec.requestBody?.content ?? {});
  const valid = schemas.of(schema);
  // One field of a right request is odd: what comes behind the first check sees it.
  const nearly = fc.tuple(valid, fc.nat(), oddValue).map(([value, index, odd]) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return odd;
    const names = Object.keys(value);
    const name = names[index % Math.max(1, names.length)] ?? 'name';
    return { ...value, [name]: odd };
  });
  const json = fc.oneof({ weight: 3, arbitrary: nearly }, { weight: 2, arbitrary: valid }, oddValue);
  return fc.oneof(
    { weight: 6, arbitrary: json.map((value) => ({ body: Buffer.from(JSON.stringify(value) ?? ''), type })) },
    { weight: 2, arbitrary: fc.constantFrom(...ODD_BODIES).map((body) => ({ body, type: 'application/json' })) },
    fc.record({
      body: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      type: fc.constantFrom(...TYPES),
    }),
    fc.constant({ body: undefined, type: undefined }),
  );
}

const escaped = (value: string) => encodeURIComponent(value.toWellFormed());
/** Parts of a path that are no escaped text. */
const BROKEN_PARTS = ['%', '%ff', '%c0%80', '%ed%a0%80', '%00', '%2e%2e', '%2f', ';', '@', '*', '~'];

function pathFor({ path, spec }: ApiOperation): fc.Arbitrary<string> {
  const inPath = (name: string) =>
    name === spec['x-wrenn-team-param']
      ? fc.constant(teamId)
      : fc.oneof(
          { weight: 4, arbitrary: fc.constantFrom(...ids) },
          { weight: 2, arbitrary: oddText.map((value) => escaped(value).slice(0, 2000) || '-') },
          fc.constantFrom(...BROKEN_PARTS),
        );
  const parts = path.split(/\{(\w+)\}/g).map((part, index) => (index % 2 === 0 ? fc.constant(part) : inPath(part)));
  const queries = spec.parameters
    .filter((parameter) => parameter.in === 'query')
    .map((parameter) => queryFor(parameter));
  return fc
    .tuple(fc.tuple(...parts), fc.tuple(...queries), fc.option(fc.tuple(oddText, oddText)))
    .map(([whole, query, extra]) => {
      const all = [...query.flat(), ...(extra ? [`${escaped(extra[0])}=${escaped(extra[1])}`] : [])];
      return `${whole.join('')}${all.length > 0 ? `?${all.join('&')}` : ''}`;
    });
}

function queryFor({ name, schema }: ApiParameter): fc.Arbitrary<string[]> {
  const one = fc.oneof(schemas.of(schema), oddValue).map((value) => {
    const shown = typeof value === 'object' ? (JSON.stringify(value) ?? '') : String(value);
    return `${name}=${escaped(shown).slice(0, 4000)}`;
  });
  return fc.oneof(
    fc.constant<string[]>([]),
    fc.array(one, { minLength: 1, maxLength: 2 }),
    fc.constantFrom<string[]>([`${name}=%ff`], [name]),
  );
}

function requestFor(operation: ApiOperation): fc.Arbitrary<Sent> {
  return fc
    .record({ path: pathFor(operation), content: bodyFor(operation), headers: fc.oneof(fc.constant({}), oddHeaders) })
    .map(({ path, content: { body, type }, headers }) => ({
      path,
      headers: { ...headers, ...(type === undefined ? {} : { 'content-type': type }) } as Record<string, string>,
      body: operation.method === 'GET' ? undefined : body,
    }));
}

/** What would tell of the inside: places in the code, SQL, files of this machine. */
const INNER =
  /node_modules|\.[jt]s:\d+|\bat [\w.<>]+ \(|Failed query|\bselect .* from |insert into|relation "|drizzle|ECONN|ENOENT|\/(work|tmp|root|home)\/|TypeError|Cannot read/i;

async function ask(operation: ApiOperation, { path, headers, body }: Sent, token: string): Promise<string | undefined> {
  const { port } = new URL(platform.baseUrl);
  const outgoing = send({
    port,
    host: '127.0.0.1',
    method: operation.method,
    path,
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    headers: { ...headers, authorization: `Bearer ${token}`, ...(body ? { 'content-length': body.length } : {}) },
  });
  const answer = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    outgoing.once('response', resolve);
    outgoing.once('error', reject);
    outgoing.end(body);
  });
  const shown = await text(answer);
  const status = answer.statusCode ?? 0;
  if (status < 400 || operation.path === '/ready') return undefined;
  let reason: ErrorCode;
  try {
    const { error } = errorResponseSchema.parse(JSON.parse(shown));
    reason = error.reason as ErrorCode;
    if (INNER.test(`${error.message} ${error.remedy}`)) return `${status} tells of the inside: ${shown}`;
  } catch {
    return `${status} is no error of the catalogue: ${shown.slice(0, 300)}`;
  }
  if (ERROR_CATALOGUE[reason]?.http !== status) return `${status} with the reason ${reason}`;
  if (status >= 500 && status !== 503) return `${status} ${shown}`;
  return undefined;
}

/** What an earlier request may have taken away is given back. */
async function renew({ user, role }: Person): Promise<string> {
  await people.db.update(users).set({ status: 'active', deletedAt: null }).where(eq(users.id, user.id));
  if (!role) return people.logIn(user, undefined);
  await people.db.update(teams).set({ deletedAt: null }).where(eq(teams.id, teamId));
  await people.db.insert(teamMembers).values({ teamId, userId: user.id, role }).onConflictDoNothing();
  return people.logIn(user, teamId);
}

it('answers whatever is sent with an error of the catalogue, or does it', {
  timeout: 240_000,
}, async ({ annotate }) => {
  await annotate(`FUZZ_SEED=${SEED}`);
  const failures: string[] = [];
  let sent = 0;
  // What takes things away comes last.
  const order = operations
    .filter(({ isSocket }) => !isSocket)
    .sort((a, b) => Number(a.method === 'DELETE') - Number(b.method === 'DELETE'));
  const startedAt = performance.now();
  for (const [index, operation] of order.entries()) {
    const requests = fc.sample(requestFor(operation), { seed: SEED + index, numRuns: RUNS * persons.size });
    const tokens = await Promise.all([...persons.values()].map(renew));
    const results = await Promise.all(
      requests.map(async (request, number) => {
        const problem = await ask(operation, request, tokens[number % tokens.length] ?? '').catch(String);
        return (
          problem && `${operation.method} ${request.path.slice(0, 200)} ${request.body?.subarray(0, 200)}: ${problem}`
        );
      }),
    );
    sent += requests.length;
    const [first] = results.filter((each) => each !== undefined);
    if (first !== undefined) failures.push(`${operation.id}: ${first}`);
  }
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  expect(failures, `seed ${SEED}; ${sent} requests in ${seconds} s`).toEqual([]);
  const unaudited = logged.filter((line) => line.includes('refuses an audit entry'));
  expect(unaudited, `requests that leave no trace, of seed ${SEED}`).toEqual([]);
});
