import { WrennError } from '@wrenn/protocol/errors';
import type { CapsuleTrace } from '@wrenn/protocol/rest/capsule';
import { toRestError } from '@wrenn/protocol/rest/error';
import { CommanderError } from 'commander';
import { afterEach, describe, expect, it } from 'vitest';
import { capsuleBody, type FakeAnswer, type FakeApi, type FakeRequest, startFakeApi } from '../testing/fake-api.ts';

const FIRST = `cl-${'a'.repeat(25)}`;
const SECOND = `cl-${'b'.repeat(25)}`;
const TRACE: CapsuleTrace = {
  kind: 'resume',
  started_at: new Date().toISOString(),
  duration_ms: 100,
  steps: [{ name: 'restore memory', where: 'host', offset_ms: 0, duration_ms: 100 }],
};

let api: FakeApi;
afterEach(() => api[Symbol.asyncDispose]());

async function serve(answers: Readonly<Record<string, FakeAnswer | ((request: FakeRequest) => FakeAnswer)>>) {
  api = await startFakeApi((request) => {
    const answer = answers[request.line];
    if (answer === undefined) return failure(new WrennError('not_found', { what: request.line }));
    return typeof answer === 'function' ? answer(request) : answer;
  });
  return api;
}

function failure(error: WrennError): FakeAnswer {
  return { status: error.http, json: { error: toRestError(error, 'req-1') } };
}

const paused = capsuleBody({
  status: 'paused',
  generation: 2,
  slept_at: new Date().toISOString(),
  snapshot_bytes: 5e7,
});

describe('several capsules', () => {
  it('are resolved by the beginnings of their ids, and the failure of one stops no other', async () => {
    const busy = new WrennError('invalid_state', { id: SECOND, status: 'pausing', needed: 'running' });
    const { run, requests } = await serve({
      'GET /v1/capsules?status=all': { json: [capsuleBody(), capsuleBody({ id: SECOND })] },
      [`POST /v1/capsules/${FIRST}/pause`]: { json: paused },
      [`POST /v1/capsules/${SECOND}/pause`]: failure(busy),
    });
    expect(await run('pause', 'bbb', 'aaa', 'cl-aa')).toEqual({ stdout: `${FIRST}\n`, exitCode: 1 });
    expect(requests).toHaveLength(3);
  });

  it('are not begun with when one is not there', async () => {
    const { run, requests } = await serve({ 'GET /v1/capsules?status=all': { json: [capsuleBody()] } });
    await expect(run('pause', 'aaa', 'zzz')).rejects.toThrow('There is no capsule zzz.');
    expect(requests).toHaveLength(1);
  });

  it('come as a list of JSON', async () => {
    const { run } = await serve({ [`POST /v1/capsules/${FIRST}/hibernate`]: { json: paused } });
    expect(JSON.parse((await run('hibernate', '--json', FIRST)).stdout)).toEqual([paused]);
  });
});

describe('wrenn resume', () => {
  it('keeps the memory unless it is told', async () => {
    const { run, requests } = await serve({
      [`POST /v1/capsules/${FIRST}/resume`]: { json: capsuleBody() },
      [`POST /v1/capsules/${FIRST}/resume?memory=discard`]: { json: capsuleBody({ memory: 'discarded' }) },
    });
    await run('resume', FIRST);
    await run('resume', '--discard-memory', FIRST);
    expect(requests.map(({ line }) => line.split('/').at(-1))).toEqual(['resume', 'resume?memory=discard']);
  });

  it('draws the timeline when it is asked to', async () => {
    const { run } = await serve({
      [`POST /v1/capsules/${FIRST}/resume`]: { json: capsuleBody() },
      [`GET /v1/capsules/${FIRST}?trace=1`]: { json: capsuleBody({ trace: TRACE }) },
    });
    expect((await run('resume', '--trace', FIRST)).stdout).toMatch(/^restore memory +host +100 ms +100% +█+$/m);
  });
});

describe('wrenn trace', () => {
  it('prints the timeline as JSON, and says so when there is none', async () => {
    let trace: CapsuleTrace | null = TRACE;
    const { run } = await serve({
      [`GET /v1/capsules/${FIRST}?trace=1`]: () => ({ json: capsuleBody({ trace, status: 'starting' }) }),
    });
    expect(JSON.parse((await run('trace', '--json', FIRST)).stdout)).toEqual(TRACE);
    trace = null;
    await expect(run('trace', FIRST)).rejects.toMatchObject({
      message: `There is no timeline of ${FIRST}.`,
      remedy: expect.stringContaining('It is starting'),
    });
  });
});

describe('wrenn fork', () => {
  it('prints the ids of the new ones, and passes on count and labels', async () => {
    const { run, requests } = await serve({
      [`POST /v1/capsules/${FIRST}/fork`]: { json: { capsules: [capsuleBody({ id: SECOND, forked_from: FIRST })] } },
    });
    expect((await run('fork', FIRST, '-n', '1', '--label', 'a=b')).stdout).toBe(`${SECOND}\n`);
    expect(requests[0]?.body).toEqual({ count: 1, metadata: { a: 'b' } });
  });

  it('refuses more than one fork can make', async () => {
    const { run, requests } = await serve({});
    await expect(run('fork', FIRST, '-n', '17')).rejects.toThrow(CommanderError);
    expect(requests).toEqual([]);
  });
});

describe('wrenn set', () => {
  it.each([
    [['--timeout', '10m', '--on-timeout', 'destroy'], { timeout_sec: 600, on_timeout: 'destroy' }],
    [['--timeout', 'none', '--deadline', 'none'], { timeout_sec: 0, deadline_sec: null }],
    [['--deadline', '2h', '--auto-resume'], { deadline_sec: 7200, auto_resume: true }],
    [['--auto-resume=false'], { auto_resume: false }],
  ])('%j sends only that', async (options, body) => {
    const { run, requests } = await serve({ [`PATCH /v1/capsules/${FIRST}`]: { json: capsuleBody() } });
    expect((await run('set', FIRST, ...options)).stdout).toBe(`${FIRST}\n`);
    expect(requests[0]?.body).toEqual(body);
  });

  it.each([[[]], [['--timeout', 'soon']], [['--on-timeout', 'sleep']], [['--auto-resume=maybe']]])(
    'refuses %j',
    async (options) => {
      const { run, requests } = await serve({});
      await expect(run('set', FIRST, ...options)).rejects.toThrow();
      expect(requests).toEqual([]);
    },
  );
});

describe('wrenn verify', () => {
  const report = (problem: string | null) => ({
    json: {
      capsule_id: FIRST,
      generation: 2,
      ok: problem === null,
      files: [{ name: 'memory', size_bytes: 1024, problem }],
    },
  });

  it.each([
    [null, 0, /^memory +1\.00 KiB +as it was written$/m],
    ['its checksum is another', 1, /^memory +1\.00 KiB +its checksum is another$/m],
  ])('with the problem %s exits with %d', async (problem, exitCode, line) => {
    const { run } = await serve({ [`POST /v1/capsules/${FIRST}/verify`]: report(problem) });
    const result = await run('verify', FIRST);
    expect(result.exitCode).toBe(exitCode);
    expect(result.stdout).toMatch(line);
  });

  it('tells the remedy of a damaged snapshot in commands', async () => {
    const damaged = new WrennError('snapshot_damaged', { id: FIRST, problem: 'memory is missing' });
    const { run } = await serve({ [`POST /v1/capsules/${FIRST}/verify`]: failure(damaged) });
    await expect(run('verify', FIRST)).rejects.toMatchObject({
      remedy: expect.stringContaining(`wrenn resume --discard-memory ${FIRST}`),
    });
  });
});

describe('wrenn snapshot and wrenn snapshots', () => {
  const snapshot = {
    id: 'snap-1',
    name: 'mine',
    type: 'snapshot' as const,
    template: 'minimal',
    capsule_id: FIRST,
    vcpus: 1,
    memory_mb: 512,
    disk_mb: 1024,
    size_bytes: 1024,
    created_at: new Date().toISOString(),
    platform: false,
    metadata: {},
  };
  const base = { ...snapshot, id: null, name: 'minimal', type: 'base' as const, capsule_id: null, vcpus: null };

  it('make, list and delete', async () => {
    const { run, requests } = await serve({
      [`POST /v1/capsules/${FIRST}/snapshots`]: { status: 201, json: snapshot },
      'GET /v1/snapshots': { json: [base, snapshot] },
      'DELETE /v1/snapshots/mine': { status: 204 },
      'DELETE /v1/snapshots/theirs': failure(new WrennError('template_not_found', { name: 'theirs' })),
    });
    expect((await run('snapshot', FIRST, 'mine')).stdout).toBe('mine\n');
    expect((await run('snapshot', FIRST)).stdout).toBe('mine\n');
    expect(requests.map(({ body }) => body)).toEqual([{ name: 'mine' }, {}]);
    expect((await run('snapshots', '-q')).stdout).toBe('mine\n');
    expect((await run('templates')).stdout).toMatch(/^minimal +base +- +- /m);
    expect(await run('snapshots', 'rm', 'mine', 'theirs')).toEqual({ stdout: 'mine\n', exitCode: 1 });
  });
});

describe('wrenn ls and wrenn inspect', () => {
  it('say since when a capsule is asleep', async () => {
    const sleptAtMs = Date.now() - 200_000;
    const asleep = { ...paused, slept_at: new Date(sleptAtMs).toISOString() };
    const { run } = await serve({
      'GET /v1/capsules?status=all': { json: [asleep, capsuleBody({ id: SECOND })] },
      [`GET /v1/capsules/${FIRST}?trace=1`]: { json: asleep },
    });
    const { stdout } = await run('ls', '--all');
    expect(stdout).toMatch(/AGE +ASLEEP\n/);
    expect(stdout).toMatch(new RegExp(`^${FIRST} +paused .* [3-9]m$`, 'm'));
    const page = (await run('inspect', FIRST)).stdout;
    const [, minutes, seconds] = /^ {2}Status +paused, asleep for (\d+)m(?: (\d+)s)? \(since /m.exec(page) ?? [];
    const asleepMs = (Number(minutes) * 60 + Number(seconds ?? 0)) * 1000;
    expect(asleepMs).toBeGreaterThanOrEqual(200_000);
    // It is rounded to seconds.
    expect(asleepMs).toBeLessThanOrEqual(Date.now() - sleptAtMs + 500);
    expect(page).toMatch(/^ {2}Sleep +generation 2, 47\.7 MiB on its host$/m);
  });

  it('say what keeps a capsule awake and what it was told', async () => {
    const since = new Date(Date.now() - 60_000).toISOString();
    const { run } = await serve({
      [`GET /v1/capsules/${FIRST}?trace=1`]: {
        json: capsuleBody({
          timeout_sec: 90,
          on_timeout: 'destroy',
          auto_resume: true,
          forked_from: SECOND,
          deadline_at: new Date(Date.now() + 7_200_500).toISOString(),
          awake: {
            busy: true,
            idle_since: null,
            reasons: [
              { kind: 'stream', detail: 'exec 31', since },
              { kind: 'cpu', detail: '40% of a CPU', since },
            ],
          },
        }),
      },
    });
    const { stdout } = await run('inspect', FIRST);
    for (const line of [
      /^ {2}Kept awake {3}by stream for 1m( \d+s)? \(.*\): exec 31$/m,
      /^ {15}by cpu for 1m( \d+s)? \(.*\): 40% of a CPU$/m,
      /^ {2}Timeout {6}destroyed after 1m 30s without activity$/m,
      /^ {2}Deadline {5}destroyed in (2h|1h 59m) \(/m,
      /^ {2}Auto-resume {2}on: /m,
      new RegExp(`^ {2}Forked from {2}${SECOND}$`, 'm'),
    ]) {
      expect(stdout).toMatch(line);
    }
  });
});

describe('wrenn create', () => {
  it('passes on when the capsule is to sleep, and draws its start', async () => {
    const { run, requests } = await serve({
      'POST /v1/capsules': { status: 201, json: capsuleBody() },
      [`GET /v1/capsules/${FIRST}?trace=1`]: { json: capsuleBody({ trace: { ...TRACE, kind: 'create' } }) },
    });
    const options = ['--timeout', '5m', '--on-timeout', 'pause', '--deadline', '1d', '--auto-resume'];
    const { stdout } = await run('create', ...options, '--trace');
    expect(requests[0]?.body).toEqual({
      timeout_sec: 300,
      on_timeout: 'pause',
      deadline_sec: 86_400,
      auto_resume: true,
    });
    expect(stdout).toMatch(new RegExp(`^${FIRST}\n${FIRST}: create at .*\nSTEP `));
  });
});
