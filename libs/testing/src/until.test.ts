import { expect, it } from 'vitest';
import { until } from './until.ts';

it('answers the first value that counts as true', async () => {
  let asked = 0;
  expect(await until('three was reached', () => (++asked < 3 ? undefined : `at ${asked}`))).toBe('at 3');
});

it('names what it waited for in vain', async () => {
  const never = until('the cows come home', 30, async () => false);
  await expect(never).rejects.toThrow('waited 30 ms in vain until the cows come home');
});

it('ends with what the check throws', async () => {
  const broken = until('it works', () => {
    throw new Error('broken');
  });
  await expect(broken).rejects.toThrow('broken');
});
