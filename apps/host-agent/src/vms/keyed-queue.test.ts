import { describe, expect, it } from 'vitest';
import { KeyedQueue } from './keyed-queue.ts';

describe('KeyedQueue', () => {
  it('keeps the order of one key and lets others pass', async () => {
    const queue = new KeyedQueue();
    const gate = Promise.withResolvers<void>();
    const order: string[] = [];
    const note = (name: string, wait?: Promise<void>) => async () => {
      await wait;
      order.push(name);
    };
    const all = [
      queue.run('a', note('a1', gate.promise)),
      queue.run('a', note('a2')),
      queue.run('b', note('b1')),
      queue.run('a', note('a3')),
    ];
    await all[2];
    expect(order).toEqual(['b1']);
    gate.resolve();
    await Promise.all(all);
    expect(order).toEqual(['b1', 'a1', 'a2', 'a3']);
  });

  it('goes on after a failure, which its caller gets', async () => {
    const queue = new KeyedQueue();
    const failing = queue.run('a', () => Promise.reject(new Error('on purpose')));
    const next = queue.run('a', async () => 'next');
    await expect(failing).rejects.toThrow('on purpose');
    expect(await next).toBe('next');
  });

  it('is idle when all have ended, also those that were added meanwhile', async () => {
    const queue = new KeyedQueue();
    let last = false;
    void queue.run('a', async () => {
      void queue.run('b', async () => {
        await new Promise(setImmediate);
        last = true;
      });
    });
    await queue.idle();
    expect(last).toBe(true);
  });
});
