import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { packSingleExecutable } from './single-executable.ts';

const run = promisify(execFile);
let dir: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-sea-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

it('runs an ES module that reads the files beside it, and lays them out once', async () => {
  const program = join(dir, 'program');
  await mkdir(join(program, 'data'), { recursive: true });
  await writeFile(join(program, 'data', 'tool.sh'), '#!/bin/sh\necho tool\n');
  await chmod(join(program, 'data', 'tool.sh'), 0o755);
  await writeFile(
    join(program, 'main.mjs'),
    `import { execFileSync } from 'node:child_process';
     const out = await Promise.resolve(execFileSync(new URL('./data/tool.sh', import.meta.url).pathname));
     console.log(String(out).trim(), process.argv.slice(2).join(','));
     process.exitCode = 3;`,
  );
  const executable = join(dir, 'hello');
  await packSingleExecutable(program, executable, join(dir, 'work'));

  const cache = join(dir, 'cache');
  const env = { PATH: '/usr/bin:/bin', WRENN_PROGRAM_CACHE: cache };
  for (let start = 0; start < 2; start++) {
    const ended = await run(executable, ['a', 'b'], { env }).catch((error: unknown) => error);
    expect(ended).toMatchObject({ code: 3, stdout: 'tool a,b\n' });
  }
  expect(await readdir(cache)).toEqual([expect.stringMatching(/^hello-[0-9a-f]{32}$/)]);
}, 120_000);
