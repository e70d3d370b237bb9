import type { CapsuleBody, CapsuleTrace } from '@wrenn/protocol/rest/capsule';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Platform, startPlatform } from './support/platform.ts';
import { wrenn as runWrenn, type WrennResult } from './support/wrenn.ts';

let platform: Platform;
let env: Record<string, string>;
/** Runs at the beginning of every test. */
let id: string;

const wrenn = (...args: string[]) => runWrenn(args, env);

/** The same; fails with what the command said when it fails. */
async function ok(...args: string[]): Promise<WrennResult> {
  const result = await wrenn(...args);
  expect(result.status, `wrenn ${args.join(' ')}: ${result.stderr}`).toBe(0);
  return result;
}

const lines = ({ stdout }: WrennResult) => stdout.split('\n').filter(Boolean);

async function inspect(capsuleId = id): Promise<CapsuleBody> {
  return JSON.parse((await ok('inspect', '--json', capsuleId)).stdout) as CapsuleBody;
}

beforeAll(async () => {
  platform = await startPlatform();
  env = { WRENN_DIR: platform.dir, WRENN_BASE_URL: platform.baseUrl, WRENN_API_KEY: platform.apiKey };
  id = lines(await ok('create', '--label', 'job=42'))[0] ?? '';
  expect(id).toMatch(/^cl-[0-9a-z]{25}$/);
});

afterAll(async () => {
  await platform?.[Symbol.asyncDispose]();
});

describe('wrenn pause and wrenn resume', () => {
  it('keep memory and programs, and say since when a capsule sleeps', async () => {
    await ok('exec', id, '--', 'sh', '-c', 'echo kept > /dev/shm/memory; setsid sleep 4711 > /dev/null 2>&1 &');
    const before = await inspect();
    expect(lines(await ok('pause', id.slice(0, 12)))).toEqual([id]);

    const asleep = await inspect();
    expect(asleep).toMatchObject({ status: 'paused', generation: before.generation + 1 });
    expect(asleep.snapshot_bytes).toBeGreaterThan(0);
    expect((await ok('ls')).stdout).toMatch(new RegExp(`AGE +ASLEEP\n(.*\n)*${id} +paused .* \\d+s\n`));
    expect((await ok('inspect', id)).stdout).toMatch(/^ {2}Status +paused, asleep for /m);

    const again = await wrenn('pause', id);
    expect(again.status).toBe(1);
    expect(again.stderr).toContain(`wrenn inspect ${id}`);

    const { stdout } = await ok('resume', '--trace', id);
    expect(stdout).toMatch(new RegExp(`^${id}\n${id}: resume at .*\nSTEP +BY +TIME +SHARE `));
    expect((await ok('exec', id, '--', 'sh', '-c', 'cat /dev/shm/memory; pgrep -fx "sleep 4711" | wc -l')).stdout).toBe(
      'kept\n1\n',
    );
    expect((await wrenn('resume', id)).status).toBe(1);
  });

  it('can leave the memory behind, and say so', async () => {
    const boot = async () => (await ok('exec', id, '--', 'cat', '/proc/sys/kernel/random/boot_id')).stdout;
    const before = await boot();
    await ok('exec', id, '--', 'sh', '-c', 'echo file > kept && sync');
    await ok('pause', id);
    const { stderr } = await ok('resume', '--discard-memory', id);
    expect(stderr).toContain('booted from its disk');
    expect(await boot()).not.toBe(before);
    expect((await ok('exec', id, '--', 'cat', 'kept')).stdout).toBe('file\n');
    expect((await ok('inspect', id)).stdout).toContain('discarded the memory');
  });
});

describe('wrenn hibernate and wrenn verify', () => {
  it('look at every file, move it away, and bring it back', async () => {
    await ok('exec', id, '--', 'sh', '-c', 'echo deep > /dev/shm/memory');
    const refused = await wrenn('hibernate', id);
    expect(refused.status).toBe(1);
    await ok('pause', id);
    const report = JSON.parse((await ok('verify', '--json', id)).stdout) as { ok: boolean; files: unknown[] };
    expect(report.ok).toBe(true);
    expect(report.files.length).toBeGreaterThan(1);
    expect((await ok('verify', id)).stdout).toMatch(/as it was written/);
    expect(lines(await ok('hibernate', id))).toEqual([id]);
    expect(await inspect()).toMatchObject({ status: 'hibernated' });
    await ok('resume', id);
    expect((await ok('exec', id, '--', 'cat', '/dev/shm/memory')).stdout).toBe('deep\n');
  });
});

describe('wrenn fork', () => {
  it('makes several that go on by themselves, each with random numbers of its own', async () => {
    await ok('exec', id, '--', 'sh', '-c', 'echo before > /dev/shm/memory');
    const children = lines(await ok('fork', '-n', '2', id));
    expect(new Set([id, ...children]).size).toBe(3);
    const random: string[] = [];
    for (const child of children) {
      const { forked_from, status, metadata } = await inspect(child);
      expect({ forked_from, status, job: metadata.job }).toEqual({ forked_from: id, status: 'running', job: '42' });
      const script = 'cat /dev/shm/memory; od -An -N16 -tx1 /dev/urandom; hostname';
      const [memory = '', bytes = '', name = ''] = lines(await ok('exec', child, '--', 'sh', '-c', script));
      expect({ memory, name }).toEqual({ memory: 'before', name: child });
      random.push(bytes);
      const trace = JSON.parse((await ok('trace', '--json', child)).stdout) as CapsuleTrace;
      expect(trace.kind).toBe('fork');
    }
    expect(new Set(random).size).toBe(2);
    await ok('rm', ...children);
  });
});

describe('wrenn snapshot and wrenn snapshots', () => {
  it('make a template that capsules start from, and delete it', async () => {
    await ok('exec', id, '--', 'sh', '-c', 'echo prepared > ready');
    expect(lines(await ok('snapshot', id, 'prepared-once'))).toEqual(['prepared-once']);
    expect((await ok('snapshots')).stdout).toMatch(new RegExp(`^prepared-once +snapshot +${id} +1 +512 MiB `, 'm'));
    expect(lines(await ok('snapshots', '-q'))).toEqual(['prepared-once']);
    const taken = await wrenn('snapshot', id, 'prepared-once');
    expect(taken).toMatchObject({ status: 1, stdout: '' });

    const [made = ''] = lines(await ok('create', '--template', 'prepared-once'));
    expect((await ok('exec', made, '--', 'cat', 'ready')).stdout).toBe('prepared\n');
    await ok('rm', made);
    expect(lines(await ok('snapshots', 'rm', 'prepared-once'))).toEqual(['prepared-once']);
    expect(lines(await ok('snapshots', '-q'))).toEqual([]);
  });
});

describe('wrenn set, wrenn inspect and wrenn trace', () => {
  it('change and show when a capsule goes to sleep', async () => {
    await ok('set', id, '--timeout', '10m', '--on-timeout', 'destroy', '--deadline', '2h', '--auto-resume');
    const set = await inspect();
    expect(set).toMatchObject({ timeout_sec: 600, on_timeout: 'destroy', auto_resume: true });
    const leftMs = Date.parse(set.deadline_at ?? '') - Date.now();
    expect(leftMs).toBeGreaterThan(7_000_000);
    expect(leftMs).toBeLessThanOrEqual(7_200_000);
    expect((await ok('inspect', id)).stdout).toMatch(/^ {2}Timeout +destroyed after 10m without activity$/m);

    await ok('set', id, '--timeout', 'none', '--on-timeout', 'pause', '--deadline', 'none', '--auto-resume=false');
    expect(await inspect()).toMatchObject({
      timeout_sec: 0,
      on_timeout: 'pause',
      deadline_at: null,
      auto_resume: false,
    });
  });

  it('show the steps of a create, which follow one another within its time', async () => {
    const { stdout } = await ok('create', '--trace');
    const made = stdout.split('\n')[0] ?? '';
    expect(stdout).toMatch(/^all +[\d.]+ m?s +100%$/m);
    const trace = JSON.parse((await ok('trace', '--json', made)).stdout) as CapsuleTrace;
    expect(trace.kind).toBe('create');
    expect(new Set(trace.steps.map(({ where }) => where))).toEqual(new Set(['control-plane', 'host']));
    for (const { name, offset_ms, duration_ms } of trace.steps) {
      expect(offset_ms, name).toBeGreaterThanOrEqual(0);
      expect(offset_ms + duration_ms, name).toBeLessThanOrEqual(trace.duration_ms + 1);
    }
    await ok('rm', made);
  });
});
