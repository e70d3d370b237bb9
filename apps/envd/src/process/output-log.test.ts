import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { OutputStream } from './output-chunk.ts';
import { OutputLog, type OutputLogOptions, type OutputReader } from './output-log.ts';
import { SpillBudget } from './spill-file.ts';

const KIB = 1024;
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'wrenn-output-log-'));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

function createLog(options: Partial<OutputLogOptions> = {}): OutputLog {
  return new OutputLog({
    spillDirectory: directory,
    spillBudget: new SpillBudget(1024 * KIB * KIB),
    reclaim: () => false,
    memoryBytes: 16 * KIB,
    spillFileBytes: 64 * KIB,
    spillFiles: 4,
    ...options,
  });
}

/** Bytes that tell their own offset, so that a wrong place shows. */
function pattern(offset: number, length: number): Buffer {
  const data = Buffer.alloc(length);
  for (let index = 0; index < length; index++) data[index] = ((offset + index) * 31) & 0xff;
  return data;
}

function readAll(reader: OutputReader): { start: number; data: Buffer; streams: OutputStream[] } {
  const parts: Buffer[] = [];
  const streams: OutputStream[] = [];
  let expected = reader.start;
  for (;;) {
    const chunk = reader.next();
    if (chunk === undefined || chunk === 'end') break;
    expect(chunk.offset).toBe(expected);
    expected += chunk.data.length;
    parts.push(chunk.data);
    streams.push(chunk.stream);
  }
  return { start: reader.start, data: Buffer.concat(parts), streams };
}

function fill(log: OutputLog, bytes: number, chunkBytes: number, streams: OutputStream[] = ['stdout']): void {
  let turn = 0;
  while (log.end < bytes) {
    const length = Math.min(chunkBytes, bytes - log.end);
    log.append(streams[turn++ % streams.length] ?? 'stdout', pattern(log.end, length));
  }
}

describe('OutputLog', () => {
  it('gives back every byte from any offset, through memory and files', () => {
    const log = createLog();
    fill(log, 200 * KIB, 1000, ['stdout', 'stderr']);
    expect(log.earliest).toBe(0);
    expect(log.spilledBytes).toBeGreaterThan(100 * KIB);
    for (const offset of [0, 1, 999, 1000, 65_537, 150_001, 200 * KIB - 1, 200 * KIB]) {
      const reader = log.attach(offset);
      const { start, data } = readAll(reader);
      expect(start).toBe(offset);
      expect(data.equals(pattern(offset, 200 * KIB - offset))).toBe(true);
      reader.close();
    }
  });

  it('keeps the streams apart and in order of arrival', () => {
    const log = createLog();
    log.append('stdout', Buffer.from('a'));
    log.append('stderr', Buffer.from('b'));
    log.append('stderr', Buffer.from('c'));
    log.append('stdout', Buffer.from('d'));
    const reader = log.attach(0);
    const { data, streams } = readAll(reader);
    expect(data.toString()).toBe('abcd');
    expect(streams).toEqual(['stdout', 'stderr', 'stdout']);
  });

  it('brings tiny writes together, in memory and on the disk', () => {
    const log = createLog();
    fill(log, 100 * KIB, 1);
    expect(log.spilledBytes).toBeLessThan(110 * KIB);
    expect(readAll(log.attach(0)).data.equals(pattern(0, 100 * KIB))).toBe(true);
  });

  it('gives up the oldest output, and says from where it is kept', () => {
    const log = createLog();
    fill(log, 2000 * KIB, 4 * KIB);
    expect(log.earliest).toBeGreaterThan(1500 * KIB);
    expect(log.spilledBytes).toBeLessThan(5 * 64 * KIB);
    const reader = log.attach(0);
    expect(reader.start).toBe(log.earliest);
    const { data } = readAll(reader);
    expect(data.equals(pattern(log.earliest, 2000 * KIB - log.earliest))).toBe(true);
  });

  it('never gives up what an attached reader has not read, and asks for a pause instead', () => {
    const pressure: boolean[] = [];
    const log = createLog({ onPressure: (behind) => pressure.push(behind) });
    const reader = log.attach(0);
    fill(log, 16 * KIB, KIB);
    expect(pressure).toEqual([]);
    fill(log, 20 * KIB, KIB);
    expect(pressure).toEqual([true]);
    // A source that does not heed the pause at once.
    fill(log, 600 * KIB, 4 * KIB);
    expect(log.earliest).toBe(0);
    expect(readAll(reader).data.equals(pattern(0, 600 * KIB))).toBe(true);
    expect(pressure).toEqual([true, false]);
  });

  it('ends the pause when the slow reader goes away', () => {
    const pressure: boolean[] = [];
    const log = createLog({ onPressure: (behind) => pressure.push(behind) });
    const reader = log.attach(0);
    fill(log, 40 * KIB, KIB);
    reader.close();
    expect(pressure).toEqual([true, false]);
  });

  it('goes on without files when the disk has no room, and leaves no hole in what is kept', () => {
    const log = createLog({ spillDirectory: join(directory, 'missing') });
    fill(log, 100 * KIB, KIB);
    expect(log.earliest).toBeGreaterThan(80 * KIB);
    const { start, data } = readAll(log.attach(0));
    expect(data.equals(pattern(start, 100 * KIB - start))).toBe(true);
  });

  it('takes from its own oldest file when the common budget is used up', () => {
    const log = createLog({ spillBudget: new SpillBudget(130 * KIB) });
    fill(log, 500 * KIB, 4 * KIB);
    expect(log.spilledBytes).toBeLessThan(150 * KIB);
    const { start, data } = readAll(log.attach(0));
    expect(data.equals(pattern(start, 500 * KIB - start))).toBe(true);
  });

  it('gives readers the rest and then the end', () => {
    const log = createLog();
    const reader = log.attach(0);
    log.append('stdout', Buffer.from('last'));
    log.close();
    expect(reader.next()).toMatchObject({ offset: 0, data: Buffer.from('last') });
    expect(reader.next()).toBe('end');
  });

  it('wakes readers on output, on the end, on their signal and after their time', async () => {
    const log = createLog();
    const reader = log.attach(0);
    const woken = reader.changed(60_000, undefined);
    log.append('stdout', Buffer.from('x'));
    expect(await woken).toBe('changed');
    const ended = reader.changed(60_000, undefined);
    log.close();
    expect(await ended).toBe('changed');
    expect(await reader.changed(60_000, AbortSignal.abort())).toBe('aborted');
    expect(await reader.changed(1, undefined)).toBe('timeout');
  });

  it('leaves no file behind and gives its budget back', () => {
    const budget = new SpillBudget(200 * KIB);
    const log = createLog({ spillBudget: budget });
    fill(log, 150 * KIB, KIB);
    expect(readdirSync(directory)).toEqual([]);
    expect(budget.reserve(200 * KIB)).toBe(false);
    log.retire();
    expect(budget.reserve(200 * KIB)).toBe(true);
  });
});
