import { expect, it } from 'vitest';
import { LineWriter } from './line-writer.ts';

it('tells each line once its end arrives, with characters that came in pieces', () => {
  const told: string[] = [];
  const writer = new LineWriter(({ text }) => told.push(text));
  const bytes = Buffer.from('grün\nzwei\nrest');
  for (const byte of bytes) writer.write(Buffer.from([byte]));
  expect(told).toEqual(['grün', 'zwei']);
  expect(writer.text).toBe('grün\nzwei\nrest');
  expect(writer.lines.every(({ atMs }) => atMs >= 0)).toBe(true);
});
