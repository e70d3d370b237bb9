import { expect, it } from 'vitest';
import { formatAge, formatBytes, formatDuration, formatInstant, formatSpan } from './format.ts';

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

it.each([
  [-1, '0s'],
  [400, '0s'],
  [45_000, '45s'],
  [90_000, '1m 30s'],
  [600_000, '10m'],
  [5_400_000, '1h 30m'],
  [3_600_000 + 5000, '1h'],
  [9 * 86_400_000 + 7_200_000, '9d 2h'],
])('formatSpan(%d) is %s', (spanMs, text) => {
  expect(formatSpan(spanMs)).toBe(text);
});

it('formatInstant is in the time zone of this machine', () => {
  const noon = new Date(2026, 2, 1, 12, 5, 9);
  expect(formatInstant(noon.toISOString())).toBe('2026-03-01 12:05:09');
});
