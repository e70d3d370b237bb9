import { expect, it } from 'vitest';
import { boundData } from './bound-data.ts';

it('leaves short facts as they are', () => {
  const data = { a: 'x', b: 1, c: null, d: ['y'], e: { f: true } };
  expect(boundData(data)).toEqual(data);
});

it('cuts long texts and lists, at every depth', () => {
  const long = 'x'.repeat(1000);
  const bounded = boundData({ text: long, deep: { text: long }, list: Array.from({ length: 100 }, () => 1) });
  expect(bounded).toMatchObject({ text: `${'x'.repeat(500)}…`, deep: { text: `${'x'.repeat(500)}…` } });
  expect(bounded.list).toHaveLength(50);
});

it('makes nothing that the database refuses', () => {
  const { text } = boundData({ text: `a\0${'x'.repeat(497)}\u{1f600}` });
  expect(text).toBe(`a${'x'.repeat(497)}\ufffd…`);
});

it('gives up on what is too large all together', () => {
  const data = Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`field ${n}`, 'x'.repeat(400)]));
  expect(boundData(data)).toEqual({ truncated: true });
});
