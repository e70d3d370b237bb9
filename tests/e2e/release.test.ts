import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PROGRAMS } from '../../scripts/build/bundle.ts';
import { packSingleExecutable } from '../../scripts/build/single-executable.ts';
import { startPlatform } from './support/platform.ts';

const run = promisify(execFile);
let dir: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-release-'));
  for (const [name, bundle] of Object.entries(PROGRAMS)) {
    const program = join(dir, `${name}.program`);
    await bundle(program);
    await packSingleExecutable(program, join(dir, name), join(dir, `${name}.pack`));
  }
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe('single executables', () => {
  it('run a capsule without node_modules, npm or Node on PATH', async () => {
    await using platform = await startPlatform({
      programs: { agent: [join(dir, 'wrenn-agent')], controlPlane: [join(dir, 'wrenn-cp')] },
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', WRENN_PROGRAM_CACHE: join(dir, 'cache') },
    });
    const created = await platform.call('POST', '/v1/capsules', {});
    expect(created.status).toBe(201);
    const { id } = created.body as { id: string };
    const ended = await platform.call('POST', `/v1/capsules/${id}/exec`, { cmd: 'echo', args: ['packed'] });
    expect(ended).toMatchObject({ status: 200, body: { stdout: 'packed\n', exit_code: 0 } });
  });

  it('say what is wrong with the environment in one message, and exit with 2', async () => {
    const env = {
      PATH: '/usr/bin:/bin',
      WRENN_PROGRAM_CACHE: join(dir, 'cache'),
      WRENN_DIR: 'relative',
      WRENN_CP_LISTEN_ADDR: '8000',
    };
    const ended = await run(join(dir, 'wrenn-cp'), [], { env }).catch((error: unknown) => error);
    expect(ended).toMatchObject({ code: 2, stderr: expect.stringMatching(/WRENN_CP_LISTEN_ADDR.*\n.*WRENN_DIR/) });
  });

  it('include a guest agent that runs alone', async () => {
    const env = { PATH: '/usr/bin:/bin', WRENN_PROGRAM_CACHE: join(dir, 'cache') };
    const { stdout } = await run(join(dir, 'envd'), ['--version'], { env });
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});
