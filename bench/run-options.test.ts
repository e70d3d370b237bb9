import { expect, it } from 'vitest';
import { isWhole, mergeRows, runOptions, SECTIONS, sampleCount } from './run-options.ts';

it('takes everything in full unless told', () => {
  const options = runOptions([]);
  expect([...options.sections]).toEqual([...SECTIONS]);
  expect(isWhole(options)).toBe(true);
  expect(sampleCount(options, 100)).toBe(100);
});

it('takes little when it should be quick, and keeps no results then', () => {
  const options = runOptions(['--quick']);
  expect(isWhole(options)).toBe(false);
  expect([sampleCount(options, 100), sampleCount(options, 1)]).toEqual([2, 1]);
});

it('takes the sections that are named, and refuses others', () => {
  const options = runOptions(['sleep', 'pool']);
  expect([...options.sections]).toEqual(['sleep', 'pool']);
  expect(isWhole(options)).toBe(false);
  expect(() => runOptions(['naps'])).toThrow('there is no section naps');
});

it('puts the rows of some sections in the place of earlier ones', () => {
  const before = [
    { name: 'a', unit: 'ms', p50: 1 },
    { name: 'b', unit: 'ms', p50: 2 },
  ];
  const measured = [
    { name: 'c', unit: 'ms', p50: 3 },
    { name: 'a', unit: 'ms', p50: 4 },
  ];
  expect(mergeRows(before, measured)).toEqual([
    { name: 'a', unit: 'ms', p50: 4 },
    { name: 'b', unit: 'ms', p50: 2 },
    { name: 'c', unit: 'ms', p50: 3 },
  ]);
});

it('keeps what was measured of one thing in several units', () => {
  const rows = [
    { name: 'a', unit: 'requests/s', p50: 100 },
    { name: 'a', unit: 'ms', p50: 10 },
  ];
  expect(mergeRows([], rows)).toEqual(rows);
});
