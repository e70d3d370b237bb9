import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { BuildSession } from './build-session.ts';
import { exportContainer } from './docker-container.ts';
import { type Scratch, scratchFolder } from './testing/scratch.ts';

/** Answers as the Docker client does, for one container `running` and one image `built`, and writes down its calls. */
const DOCKER = `#!/bin/sh
echo "$*" >>"$DOCKER_LOG"
config='{"Env":["PATH=/usr/bin","GREETING=a=b"],"User":"app:app","WorkingDir":"/srv"}'
case "$*" in
  'container inspect running') ;;
  'container inspect '*) echo "Error: No such container: $3" >&2; exit 1 ;;
  'inspect --format {{json .Config}} running') echo '{"Env":null,"User":"","WorkingDir":""}' ;;
  'inspect --format {{json .Config}} built') echo "$config" ;;
  'inspect '*) echo "Error: No such object: $4" >&2; exit 1 ;;
  'create built '*) echo made ;;
  'export --output '*' broken') exit 1 ;;
  'export --output '*) echo "files of $4" >"$3" ;;
  'rm made') ;;
  *) exit 2 ;;
esac
`;

async function session(scratch: Scratch): Promise<{ session: BuildSession; calls: () => Promise<string[]> }> {
  const bin = join(scratch.path, 'bin');
  const log = join(scratch.path, 'log');
  await mkdir(bin);
  await writeFile(join(bin, 'docker'), DOCKER);
  await chmod(join(bin, 'docker'), 0o755);
  vi.stubEnv('PATH', `${bin}:${process.env.PATH}`);
  vi.stubEnv('DOCKER_LOG', log);
  return {
    session: {
      wrennDir: scratch.wrennDir,
      codename: 'bookworm',
      refresh: false,
      signal: new AbortController().signal,
      onProgress: () => undefined,
      archive: () => Promise.reject(new Error('not used')),
      workDir: scratch.path,
      bundleEnvd: () => Promise.reject(new Error('not used')),
    },
    calls: async () => (await readFile(log, 'utf8')).trim().split('\n'),
  };
}

describe('exportContainer', () => {
  afterEach(() => vi.unstubAllEnvs());

  it('exports a container as it is', async () => {
    await using scratch = await scratchFolder();
    const { session: build, calls } = await session(scratch);
    const { tarball, defaults } = await exportContainer(build, 'running');
    expect(await readFile(tarball, 'utf8')).toBe('files of running\n');
    expect(defaults).toEqual({ defaultEnvs: {} });
    expect((await calls()).some((call) => /^(create|rm)/.test(call))).toBe(false);
  });

  it('makes a container of an image, takes its settings, and removes it', async () => {
    await using scratch = await scratchFolder();
    const { session: build, calls } = await session(scratch);
    const { tarball, defaults } = await exportContainer(build, 'built');
    expect(await readFile(tarball, 'utf8')).toBe('files of made\n');
    expect(defaults).toEqual({
      defaultEnvs: { PATH: '/usr/bin', GREETING: 'a=b' },
      defaultUser: 'app',
      defaultWorkdir: '/srv',
    });
    expect((await calls()).at(-1)).toBe('rm made');
  });

  it('tells what Docker said of what is not there', async () => {
    await using scratch = await scratchFolder();
    const { session: build } = await session(scratch);
    await expect(exportContainer(build, 'absent')).rejects.toThrow(/No such object: absent/);
  });
});
