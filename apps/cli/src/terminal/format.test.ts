import { expect, it } from 'vitest';
import { formatAge, formatBytes, formatDuration } from './format.ts';

it.each([
  [-5, '0s'],
  [999, '0s'],
  [45_000, '45s'],
  [200_000, '3m'],
  [7_200_000, '2h'],
  [9 * 86_400_000 + 1, '9d'],
])('formatAge(%d) is %s', (spanMs, text) => {
  expect(formatAge(spanMs)).toBe(text);
});

it.each([
  [3.2, '3 ms'],
  [999.6, '1.0 s'],
  [3249, '3.2 s'],
  [59_960, '1 m 00 s'],
  [125_000, '2 m 05 s'],
])('formatDuration(%d) is %s', (spanMs, text) => {
  expect(formatDuration(spanMs)).toBe(text);
});

it.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1536, '1.50 KiB'],
  [50_000_000, '47.7 MiB'],
  [1024 ** 3 - 1, '1.00 GiB'],
  [250 * 1024 ** 3, '250 GiB'],
])('formatBytes(%d) is %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});
