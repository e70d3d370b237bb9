import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { openLogFile } from './log-file.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-log-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

it('keeps the newest lines in a bounded number of bounded files', () => {
  const path = join(dir, 'a.log');
  {
    using log = openLogFile(path, 30);
    for (let line = 0; line < 20; line += 1) log.append(Buffer.from(`line number ${line}\n`));
    expect(log.tail().split('\n').at(-1)).toBe('line number 19');
  }
  expect(readdirSync(dir).sort()).toEqual(['a.log', 'a.log.1', 'a.log.2']);
  expect(readFileSync(path, 'utf8')).toBe('line number 18\nline number 19\n');
  expect(readFileSync(`${path}.1`, 'utf8')).toBe('line number 16\nline number 17\n');
});

it('goes on in the file of an earlier run, and counts what is in it', () => {
  const path = join(dir, 'a.log');
  for (const text of ['first run\n', 'second run\n', 'third run\n']) {
    using log = openLogFile(path, 25);
    log.append(Buffer.from(text));
  }
  expect(readFileSync(path, 'utf8')).toBe('third run\n');
  expect(readFileSync(`${path}.1`, 'utf8')).toBe('first run\nsecond run\n');
});
