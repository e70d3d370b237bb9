import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { until } from '@wrenn/testing/until';
import { expect, it } from 'vitest';
import { commandOf, findVmProcess } from './vm-process.ts';

it('finds the process of a capsule among the records of the host agent', async () => {
  const root = await mkdtemp(join(tmpdir(), 'wrenn-demo-'));
  const dir = wrennDir(root);
  const records = { 'vm-1': { id: '' }, 'vm-2': { id: 'cl-2', process: { pid: 42 }, phase: 'running' } };
  for (const [name, record] of Object.entries(records)) {
    await mkdir(dir.capsule(name), { recursive: true });
    await writeFile(join(dir.capsule(name), 'record.json'), JSON.stringify(record));
  }
  await mkdir(dir.capsule('vm-0-without-a-record'));
  expect([await findVmProcess(dir, 'cl-2'), await findVmProcess(dir, 'cl-3')]).toEqual([42, undefined]);
  await rm(root, { recursive: true });
});

it('tells the command of a process as long as it runs', async () => {
  const child = spawn('sleep', ['600']);
  await once(child, 'spawn');
  // For a moment after its start a program has no arguments.
  expect(await until('it has a command', () => commandOf(child.pid ?? 0))).toBe('sleep 600 ');
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(await commandOf(child.pid ?? 0)).toBeUndefined();
});
