import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';
import type { ExtensionContext, PlannedCapsules } from './extension.ts';
import { type ExtensionDeps, Extensions } from './extensions.ts';
import { loadExtensions } from './load-extensions.ts';

const SAMPLE = join(import.meta.dirname, '..', 'testing', 'sample-extension.ts');
const log = pino({ level: 'silent' });

describe('an extension', () => {
  let platform: TestPlatform;
  beforeAll(async () => {
    platform = await TestPlatform.start({ WRENN_EXTENSIONS: SAMPLE });
  });
  afterAll(() => platform[Symbol.asyncDispose]());

  it('is listed, and its routes are described', async () => {
    expect((await platform.call('/v1/extensions')).body).toEqual([{ name: 'sample' }]);
    const { paths } = (await platform.call('/openapi.json')).body;
    const note = paths['/v1/x/sample/notes'].post;
    expect(note['x-wrenn-permission']).toBe('capsule.write');
    expect(note.parameters.map(({ name }: { name: string }) => name.toLowerCase())).toContain('idempotency-key');
  });

  it('serves nobody whom the permissions of its routes do not allow', async () => {
    const url = `${platform.baseUrl}/v1/x/sample/notes`;
    expect((await fetch(url, { method: 'POST' })).status).toBe(401);
    // What is of the team's people is not for keys.
    expect(await platform.call('/v1/x/sample/counts')).toMatchObject({
      status: 403,
      body: { error: { reason: 'login_required' } },
    });
  });

  it('does its jobs and writes the audit log', async () => {
    const { status } = await platform.call('/v1/x/sample/notes', { json: { text: 'hello' } });
    expect(status).toBe(202);
    await until('the note is taken', async () => (await seen()).notes.includes('hello'));
    const { items } = (await platform.call('/v1/audit-logs?resource_type=sample')).body;
    expect(items).toEqual([expect.objectContaining({ action: 'note', actor_name: 'sample' })]);
  });

  it('works in the background', async () => {
    await until('it has begun', async () => (await seen()).beats === 1);
  });

  it('refuses capsules, created or forked, before anything is made', async () => {
    const made = await platform.createCapsule();
    const before = platform.host.creates;
    const answer = await platform.call('/v1/capsules', { json: { memory_mb: 2048 } });
    expect(answer).toMatchObject({
      status: 403,
      body: { error: { code: 'forbidden', message: 'Your plan has capsules of at most 1024 MiB.' } },
    });
    expect(platform.host.creates).toBe(before);
    const had = (await seen()).capsules;
    expect((await platform.call(`/v1/capsules/${made}/fork`, { json: { count: 2 } })).status).toBe(201);
    expect((await seen()).capsules).toBe(had + 2);
  });

  /** As the public route of the sample tells it. */
  async function seen(): Promise<{ capsules: number; beats: number; notes: string[] }> {
    return (await platform.call('/v1/x/sample/public-counts')).body;
  }
});

describe('what is no extension', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'wrenn-extension-'));
  });
  afterEach(() => rm(dir, { recursive: true }));
  const write = async (name: string, text: string) => {
    const path = join(dir, `${name}.mjs`);
    await writeFile(path, text);
    return path;
  };

  it.each([
    ['is not there', undefined, /cannot be loaded: Cannot find module/],
    ['does not parse', 'export const = 1', /cannot be loaded: /],
    ['throws', 'throw new Error("no licence")', /cannot be loaded: no licence/],
    ['exports nothing', '', /does not export what an extension must: extension: /],
    ['has a bad name', 'export const extension = { name: "A b", register() {} }', /extension\.name: must be/],
    ['cannot be registered', 'export const extension = { name: "a" }', /extension\.register: must be a function/],
    ['has routes elsewhere', 'export const extension = { name: "a", prefix: "/x", register() {} }', /prefix: must be/],
  ])('stops the start when it %s', async (what, text, message) => {
    const path = text === undefined ? join(dir, 'none.mjs') : await write(what.replaceAll(' ', '-'), text);
    await expect(loadExtensions([path])).rejects.toThrow(message);
    await expect(loadExtensions([path])).rejects.toThrow(path);
  });

  it('stops the start when its name is taken', async () => {
    const text = 'export const extension = { name: "same", register() {} }';
    const paths = [await write('one', text), await write('two', text)];
    await expect(loadExtensions(paths)).rejects.toThrow('two extensions that are called same');
  });

  it.each([
    ['fails to register', 'throw new Error("no database")', /extension broken cannot be used: no database/],
    [
      'has a route without a permission',
      `context.routes((app) => { app.get('/a', async () => 1) })`,
      /extension broken cannot be used: the route .* names no permission/,
    ],
    [
      'takes a route of the core',
      `context.routes((app) => { app.get('/', { config: { permission: 'public' },
         schema: { operationId: 'a', tags: ['a'], summary: 'a' } }, async () => 1) })`,
      /extension broken cannot be used: .*already declared/,
    ],
  ])('stops the start when it %s', async (what, body, message) => {
    const prefix = what.startsWith('takes') ? 'prefix: "/v1/capsules",' : '';
    const path = await write(
      'broken',
      `export const extension = { name: 'broken', ${prefix} register(context) { ${body} } }`,
    );
    await expect(TestPlatform.start({ WRENN_EXTENSIONS: path })).rejects.toThrow(message);
  });
});

describe('the work and the checks of extensions', () => {
  const planned: PlannedCapsules = {
    ...{ teamId: 't', actor: 'a', by: 'create', count: 1, template: 'minimal' },
    ...{ vcpus: 1, memoryMb: 512, labels: {} },
  };
  const registered = async (register: (context: ExtensionContext) => void) => {
    const extensions = new Extensions([{ name: 'test', register }], 1);
    await extensions.register({} as ExtensionDeps, log);
    return extensions;
  };

  it('begin work again that failed, and end with the signal', async () => {
    const stop = new AbortController();
    let runs = 0;
    const extensions = await registered(({ work }) =>
      work('x', async (signal) => {
        if (++runs < 3) throw new Error('not yet');
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
      }),
    );
    const done = extensions.run(stop.signal);
    await until('it runs', () => runs === 3);
    stop.abort();
    await done;
    expect(runs).toBe(3);
  });

  it('let capsules be made where all agree', async () => {
    const asked: string[] = [];
    const extensions = await registered(({ beforeCapsules }) => {
      beforeCapsules(async () => void asked.push('one'));
      beforeCapsules(async ({ memoryMb }) => void asked.push(`two ${memoryMb}`));
    });
    await extensions.beforeCapsules(planned);
    expect(asked).toEqual(['one', 'two 512']);
  });
});
