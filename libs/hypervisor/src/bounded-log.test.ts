import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { until } from '@wrenn/testing/until';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { BoundedLog, logTail, trimLog } from './bounded-log.ts';

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-log-'));
  path = join(dir, 'log');
});
afterEach(() => rmSync(dir, { recursive: true }));

it('keeps the last half of a log that is too long', async () => {
  writeFileSync(path, `${'a'.repeat(900)}${'b'.repeat(200)}`);
  await trimLog(path, 1000);
  expect(readFileSync(path, 'utf8')).toBe(`${'a'.repeat(300)}${'b'.repeat(200)}`);
});

it('leaves a log alone that is not', async () => {
  writeFileSync(path, 'short');
  await trimLog(path, 1000);
  expect(readFileSync(path, 'utf8')).toBe('short');
});

it('cuts a log that grows while it is watched, again and again', async () => {
  writeFileSync(path, 'x'.repeat(5000));
  const log = await BoundedLog.watch(path, 1000);
  try {
    expect(statSync(path).size).toBe(500);
    for (const round of [1, 2]) {
      appendFileSync(path, `${'y'.repeat(5000)}${round}`);
      await until('it is cut', () => statSync(path).size <= 1000);
      expect(readFileSync(path, 'utf8').at(-1)).toBe(String(round));
    }
  } finally {
    log.close();
  }
});

it('sees what is appended right after a cut', async () => {
  writeFileSync(path, '');
  const log = await BoundedLog.watch(path, 1000);
  try {
    for (const round of [1, 2]) {
      appendFileSync(path, `${'x'.repeat(5000)}${round}`);
      while (statSync(path).size > 1000) await nextTurn();
    }
  } finally {
    log.close();
  }
});

it('follows no link that stands in the place of a log', async () => {
  const other = join(dir, 'other');
  writeFileSync(other, 'x'.repeat(5000));
  symlinkSync(other, path);
  await expect(trimLog(path, 1000)).rejects.toThrow(/ELOOP/);
  await expect(logTail(path, 10)).rejects.toThrow(/ELOOP/);
  expect(statSync(other).size).toBe(5000);
});

it('reads the end of a log, and nothing of one that is not there', async () => {
  writeFileSync(path, 'first\nlast\n');
  expect(await logTail(path, 5)).toBe('last\n');
  expect(await logTail(join(dir, 'absent'), 5)).toBe('');
});
