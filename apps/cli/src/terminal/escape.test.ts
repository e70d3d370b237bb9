import { describe, expect, it } from 'vitest';
import { watchEscape } from './escape.ts';

function type(...chunks: string[]): { passed: string; left: boolean } {
  const readKeys = watchEscape();
  const results = chunks.map((chunk) => readKeys(Buffer.from(chunk)));
  return {
    passed: results.map(({ pass }) => Buffer.from(pass).toString()).join(''),
    left: results.some(({ leave }) => leave),
  };
}

describe('watchEscape', () => {
  it.each([
    ['at the start', ['~', '.']],
    ['after Enter, key by key', ['ls', '\r', '~', '.']],
    ['after Enter, pasted', ['ls\r~.']],
  ])('leaves %s', (_, chunks) => {
    expect(type(...chunks).left).toBe(true);
  });

  it.each([
    ['a ~ within a line', ['cd ~.', '\r'], 'cd ~.\r'],
    ['a path from ~ at the start of a line', ['\r', '~', '/bin\r'], '\r~/bin\r'],
    ['~~ as one ~', ['\r~~.'], '\r~.'],
    ['Enter after ~', ['\r~\r~', 'x'], '\r~\r~x'],
    ['UTF-8 byte for byte', ['ä\u{1f600}'], 'ä\u{1f600}'],
  ])('passes on %s', (_, chunks, passed) => {
    expect(type(...chunks)).toEqual({ passed, left: false });
  });
});
