import { setTimeout as delay } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { mapAhead } from './map-ahead.ts';

it('keeps the order, with a bounded number in work', async () => {
  let inWork = 0;
  let most = 0;
  const results: number[] = [];
  for await (const result of mapAhead([9, 1, 5, 2, 8, 3], 3, async (item) => {
    most = Math.max(most, ++inWork);
    await delay(item);
    inWork -= 1;
    return item * 10;
  })) {
    results.push(result);
  }
  expect(results).toEqual([90, 10, 50, 20, 80, 30]);
  expect(most).toBe(3);
});

it('takes nothing further after a failure, and waits for what is in work', async () => {
  const ended: number[] = [];
  let closed = false;
  async function* items() {
    try {
      for (let item = 0; ; item++) yield item;
    } finally {
      closed = true;
    }
  }
  const failing = async () => {
    for await (const _ of mapAhead(items(), 4, async (item) => {
      await delay(item * 3);
      ended.push(item);
      if (item === 1) throw new Error('one failed');
    })) {
      // Only the failure matters.
    }
  };
  await expect(failing()).rejects.toThrow('one failed');
  expect(ended).toEqual([0, 1, 2, 3, 4]);
  expect(closed).toBe(true);
});
