import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { until } from '@wrenn/testing/until';
import { afterEach, expect, it } from 'vitest';
import { hasArgument, isRunning, killProcess, type ProcessKey, processKey, waitUntilGone } from './vm-process.ts';

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

async function start(...argv: [string, ...string[]]): Promise<ProcessKey> {
  const [program, ...args] = argv;
  const child = spawn(program, args, { stdio: 'ignore' });
  children.push(child);
  await once(child, 'spawn');
  const key = processKey(child.pid ?? 0);
  if (!key) throw new Error('The process has no key');
  return key;
}

it('ends the process that it was given, and waits', async () => {
  const key = await start('sleep', '60');
  expect(isRunning(key)).toBe(true);
  expect(await waitUntilGone(key, 20)).toBe(false);
  await killProcess(key);
  expect(isRunning(key)).toBe(false);
  await killProcess(key);
});

it('looks again after the time is over, when it may have stood still meanwhile', async () => {
  const key = await start('sleep', '60');
  const gone = waitUntilGone(key, 0);
  process.kill(key.pid, 'SIGKILL');
  while (isRunning(key));
  expect(await gone).toBe(true);
});

it('leaves a later process with the same pid alone', async () => {
  const key = await start('sleep', '60');
  const earlier = { ...key, startTicks: String(Number(key.startTicks) - 1) };
  expect(isRunning(earlier)).toBe(false);
  await killProcess(earlier);
  expect(isRunning(key)).toBe(true);
});

it('reads the start time of a program with brackets and spaces in its name', async () => {
  const key = await start('sh', '-c', 'printf ") S 1 2" >/proc/self/comm; while :; do sleep 1; done');
  await until('it has its name', () => readFileSync(`/proc/${key.pid}/comm`, 'utf8') === ') S 1 2\n');
  expect(processKey(key.pid)).toEqual(key);
});

it('knows the arguments of a process', async () => {
  const key = await start('sleep', '60');
  // For a moment after its start a program has none.
  await until('it has arguments', () => hasArgument(key, '60'));
  expect(await hasArgument(key, '6')).toBe(false);
});

it('has no key for a pid that nobody has', () => {
  expect(processKey(2 ** 22 + 1)).toBeUndefined();
});
