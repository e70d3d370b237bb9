import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { COUNTS_FILE } from './count-reporter.ts';
import type { Counts } from './test-counts.ts';

const REPORTER = join(import.meta.dirname, 'count-reporter.ts');

/** What the reporter writes of a run of files of tests that use Vitest's globals. */
async function countsOf(files: Record<string, string>): Promise<Counts> {
  await using stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-counts-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
  const countsFile = join(dir, 'counts.json');
  const run = spawn('vitest', ['run', `--root=${dir}`, '--globals', `--reporter=${REPORTER}`], {
    stdio: 'ignore',
    env: { ...process.env, [COUNTS_FILE]: countsFile },
  });
  await once(run, 'exit');
  return JSON.parse(await readFile(countsFile, 'utf8'));
}

it('counts what passes, names what is skipped, and names each failure with its error', async () => {
  const counts = await countsOf({
    'tests.test.ts': `
      it('passes', () => undefined);
      it.skip('waits for KVM', () => undefined);
      it('adds', () => expect(1 + 1).toBe(3));`,
    'hooks.test.ts': `
      describe('a group', () => {
        beforeAll(() => { throw new Error('did not start'); });
        it('is not reached', () => undefined);
      });
      it('passes', () => undefined);
      afterAll(() => { throw new Error('did not end'); });`,
    'missing.test.ts': `import './nowhere.ts';`,
    'late.test.ts': `
      it('passes', () => new Promise((resolve) => {
        setTimeout(() => { throw new Error('unheard'); }, 1);
        setTimeout(resolve, 100);
      }));`,
  });
  expect(counts.passed).toBe(3);
  expect(counts.skipped.toSorted()).toEqual(['a group > is not reached', 'waits for KVM']);
  expect(counts.failures.toSorted()).toEqual([
    expect.stringMatching(/^hooks\.test\.ts > a group: did not start \(at .*hooks\.test\.ts:3:/),
    expect.stringMatching(/^hooks\.test\.ts: did not end \(at .*hooks\.test\.ts:7:/),
    expect.stringMatching(/^missing\.test\.ts: Cannot find module/),
    expect.stringMatching(/^outside of tests, during .*late\.test\.ts > passes: unheard \(at .*late\.test\.ts:3:/),
    expect.stringMatching(/^tests\.test\.ts > adds: expected 2 to be 3 .*\(at .*tests\.test\.ts:4:/),
  ]);
});
