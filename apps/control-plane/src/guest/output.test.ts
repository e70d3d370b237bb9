import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { execJson } from './exec-json.ts';
import { OutputCollector, wholeCharacters } from './output-collector.ts';
import { TextChunks } from './text-chunks.ts';

const head = {
  capsule_id: 'cl-1',
  sandbox_id: 'cl-1',
  cmd: 'x',
  pid: 1,
  tag: null,
  exit_code: 0,
  signal: null,
  duration_ms: 1,
};
const collect = (limit: number, ...chunks: Uint8Array[]) => {
  const collector = new OutputCollector(limit);
  for (const chunk of chunks) collector.push(chunk);
  return collector;
};
const bytesOf = (collector: OutputCollector) => Buffer.concat([...collector.blocks()]);

describe('wholeCharacters', () => {
  it.each([
    ['', 0],
    ['a', 1],
    ['ä', 2],
    ['€', 3],
    ['😀', 4],
  ])('cuts %j before its last byte and not after it', (character, length) => {
    const bytes = Buffer.from(`x${character}`);
    expect(wholeCharacters(bytes)).toBe(bytes.length);
    if (length > 1) expect(wholeCharacters(bytes.subarray(0, -1))).toBe(1);
  });

  it('does not wait for what can be no character', () => {
    expect(wholeCharacters(Buffer.from([0x80, 0x80, 0x80, 0x80]))).toBe(4);
    for (const byte of [0xff, 0xc0, 0xf8]) expect(wholeCharacters(Buffer.from([byte]))).toBe(1);
  });
});

describe('OutputCollector', () => {
  it('keeps the first bytes over many blocks and counts the rest', () => {
    const chunk = Buffer.from(Array.from({ length: 100_003 }, (_, i) => i & 255));
    const collector = collect(1_000_000, ...Array.from({ length: 12 }, () => chunk));
    expect(
      bytesOf(collector).equals(Buffer.concat(Array.from({ length: 12 }, () => chunk)).subarray(0, 1_000_000)),
    ).toBe(true);
    expect(collector.truncatedBytes).toBe(12 * 100_003 - 1_000_000);
  });

  it('tells text from bytes, also where a character lies over two blocks', () => {
    expect(collect(1_000_000, Buffer.from(`x${'ä'.repeat(300_000)}`)).isText()).toBe(true);
    expect(collect(10, Buffer.from([0xff])).isText()).toBe(false);
    expect(collect(10, Buffer.from([0xc3])).isText()).toBe(false);
    expect(collect(2, Buffer.from('xä')).isText()).toBe(true);
    expect(collect(10).isText()).toBe(true);
  });
});

describe('execJson', () => {
  it.each([
    ['text', `x${'ä€"\\\n\u0000'.repeat(100_000)}`],
    ['a mark at its beginning', '\ufeffx'],
    ['nothing', ''],
  ])('is JSON that holds %s', async (_, output) => {
    const json = JSON.parse(await text(execJson(head, collect(10_000_000, Buffer.from(output)), collect(10))));
    expect(json).toEqual({
      ...head,
      stdout: output,
      stderr: '',
      encoding: 'utf-8',
      stdout_truncated_bytes: 0,
      stderr_truncated_bytes: 0,
    });
  });

  it('is JSON that holds any bytes', async () => {
    const bytes = Buffer.from(Array.from({ length: 700_001 }, (_, i) => (i * 31) & 255));
    const json = JSON.parse(await text(execJson(head, collect(10_000_000, bytes), collect(1, Buffer.from('ab')))));
    expect(json.encoding).toBe('base64');
    expect(Buffer.from(json.stdout, 'base64').equals(bytes)).toBe(true);
    expect(json).toMatchObject({ stderr: 'YQ==', stderr_truncated_bytes: 1 });
  });
});

describe('TextChunks', () => {
  it('gives every byte once, whole characters only, with their offsets', () => {
    const bytes = Buffer.from('aä€😀z');
    const chunks = new TextChunks();
    const got = [...bytes].flatMap((byte, at) => chunks.push(Buffer.from([byte]), 100 + at) ?? []);
    expect(got).toEqual([
      { data: 'a', offset: 100 },
      { data: 'ä', offset: 101 },
      { data: '€', offset: 103 },
      { data: '😀', offset: 106 },
      { data: 'z', offset: 110 },
    ]);
    expect(chunks.end()).toBeUndefined();
  });

  it('adds the bytes where they are no text', () => {
    const chunks = new TextChunks();
    expect(chunks.push(Buffer.from([0x61, 0xff, 0x62]), 0)).toEqual({ data: 'a\ufffdb', data_b64: 'Yf9i', offset: 0 });
    expect(chunks.push(Buffer.from([0xe2, 0x82]), 3)).toBeUndefined();
    expect(chunks.end()).toEqual({ data: '\ufffd', data_b64: '4oI=', offset: 3 });
  });
});
