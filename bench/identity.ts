import { HttpConnection, jsonOf, type RawRequest, rawRequest } from './http-client.ts';
import { CAPSULES, type IdentityPlatform, startIdentityPlatform } from './identity-platform.ts';
import { type Comparison, type Measurement, summarise, timed } from './measurement.ts';

const CONNECTIONS = 16;
/** What scrypt leaves room for. */
const LOGIN_CONNECTIONS = 4;
const WARM_UP = 100;
const ROUNDS = 1000;
const LOGINS = 40;
const LOAD_WINDOWS = 8;
const WINDOW_MS = 500;

const KEY_AIM = { of: 'above floor', sign: '≤', limit: 0.3 } as const;
const PAGE_AIM = { of: 'p99', sign: '≤', limit: 30 } as const;

/**
 * What knowing who asks costs, and a page of a long list: beside the bare route of the same server, one request at a
 * time in turns, and many at once.
 *
 * @param count samples to take of what a full run takes that many of
 */
export async function* measureIdentity(count: (n: number) => number): AsyncGenerator<Measurement> {
  await using platform = await startIdentityPlatform();
  const { port } = platform;
  using connection = await HttpConnection.open(port);
  const login = loginRequest(platform);
  const { token } = jsonOf(await connection.send(login)) as { token: string };
  const key = { headers: { 'x-api-key': platform.apiKey } };
  const cheap = '/v1/snapshots?type=base';
  const list = (name: string, query: string) => rawRequest(name, 'GET', `/v1/capsules?limit=50${query}`, key);
  const middle = await middleOf(connection, key);

  const bare = rawRequest('bare route', 'GET', '/health');
  const keyed = rawRequest('a route with a key', 'GET', cheap, key);
  const session = rawRequest('a route with a login token', 'GET', cheap, {
    headers: { authorization: `Bearer ${token}` },
  });
  const pages = [
    list(`first 50 of ${CAPSULES} capsules`, ''),
    list(`50 from the middle of ${CAPSULES} capsules`, `&status=all&cursor=${middle}`),
    list('50 with a label that half of them have', '&status=all&label=env=prod'),
    list('50 with a label that 100 of them have', '&status=all&label=job=500'),
    list('50 of a template and a state', '&status=error&template=python'),
  ];

  const aims = new Map<RawRequest, Comparison>([
    [keyed, { aim: KEY_AIM }],
    [session, {}],
    ...pages.map((page): [RawRequest, Comparison] => [page, { aim: PAGE_AIM }]),
  ]);
  const alone = await inTurns(connection, [bare, keyed, session, ...pages], count);
  const floor = alone.get(bare) ?? [];
  yield summarise(`${bare.name}, one at a time`, 'ms', floor);
  for (const [request, comparison] of aims) {
    yield summarise(`${request.name}, one at a time`, 'ms', alone.get(request) ?? [], { floor, ...comparison });
  }
  const logins: number[] = [];
  for (let i = 0; i < count(LOGINS); i++) logins.push(await timed(() => connection.send(login)));
  yield summarise('login with a password, one at a time', 'ms', logins, { floor });

  const bareLoad = await underLoad(port, bare, CONNECTIONS, count);
  yield* loadRows(bare, CONNECTIONS, bareLoad, undefined);
  for (const request of [keyed, session, pages[0] ?? keyed]) {
    yield* loadRows(request, CONNECTIONS, await underLoad(port, request, CONNECTIONS, count), bareLoad);
  }
  yield* loadRows(login, LOGIN_CONNECTIONS, await underLoad(port, login, LOGIN_CONNECTIONS, count), bareLoad);
}

function loginRequest({ email, password }: IdentityPlatform): RawRequest {
  return rawRequest('login with a password', 'POST', '/v1/auth/login', { json: { email, password } });
}

/** The cursor of the page after half of all capsules. */
async function middleOf(connection: HttpConnection, key: { headers: Record<string, string> }): Promise<string> {
  const pageSize = 1000;
  let cursor = '';
  for (let seen = 0; seen < CAPSULES / 2; seen += pageSize) {
    const path = `/v1/capsules?status=all&limit=${pageSize}${cursor && `&cursor=${cursor}`}`;
    const answer = await connection.send(rawRequest('a page of the list', 'GET', path, key));
    cursor = /\r\nx-next-cursor: (\S+)/i.exec(answer.toString('latin1'))?.[1] ?? '';
  }
  return cursor;
}

/** Milliseconds of each request, in turns, so that whatever else the machine does meets all alike. */
async function inTurns(
  connection: HttpConnection,
  requests: readonly RawRequest[],
  count: (n: number) => number,
): Promise<Map<RawRequest, number[]>> {
  const samples = new Map<RawRequest, number[]>(requests.map((request) => [request, []]));
  for (let i = 0; i < count(WARM_UP); i++) for (const request of requests) await connection.send(request);
  for (let i = 0; i < count(ROUNDS); i++) {
    for (const [request, taken] of samples) taken.push(await timed(() => connection.send(request)));
  }
  return samples;
}

/** What many connections at once met. */
interface Load {
  readonly latenciesMs: readonly number[];
  /** Requests per second in each window. */
  readonly rates: readonly number[];
}

async function underLoad(
  port: number,
  request: RawRequest,
  connections: number,
  count: (n: number) => number,
): Promise<Load> {
  await using stack = new AsyncDisposableStack();
  const open = await Promise.all(Array.from({ length: connections }, () => HttpConnection.open(port)));
  for (const one of open) stack.use(one);
  await Promise.all(open.map((one) => one.send(request)));
  const latenciesMs: number[] = [];
  const rates: number[] = [];
  for (let window = 0; window < count(LOAD_WINDOWS); window++) {
    const started = performance.now();
    const before = latenciesMs.length;
    await Promise.all(
      open.map(async (one) => {
        while (performance.now() - started < WINDOW_MS) latenciesMs.push(await timed(() => one.send(request)));
      }),
    );
    rates.push(((latenciesMs.length - before) * 1000) / (performance.now() - started));
  }
  return { latenciesMs, rates };
}

function* loadRows(
  { name }: RawRequest,
  connections: number,
  load: Load,
  bare: Load | undefined,
): Generator<Measurement> {
  const floorOf = (samples: readonly number[] | undefined) => (samples ? { floor: samples } : {});
  yield summarise(`${name}, ${connections} at once`, 'requests/s', load.rates, floorOf(bare?.rates));
  yield summarise(`${name}, ${connections} at once`, 'ms', load.latenciesMs, floorOf(bare?.latenciesMs));
}
