import { expect, it } from 'vitest';
import { Turns } from './turns.ts';

const never = new AbortController().signal;

it('lets so many in at once, and the others in the order in which they came', async () => {
  const turns = new Turns(2);
  const ends = Array.from({ length: 4 }, () => Promise.withResolvers<void>());
  const begun: number[] = [];
  const runs = ends.map(({ promise }, i) =>
    turns.take(async () => {
      begun.push(i);
      await promise;
    }, never),
  );
  expect(begun).toEqual([0, 1]);
  ends[1]?.resolve();
  await runs[1];
  expect(begun).toEqual([0, 1, 2]);
  for (const { resolve } of ends) resolve();
  await Promise.all(runs);
  expect(begun).toEqual([0, 1, 2, 3]);
});

it('gives the turn of one that fails or gives up to the next', async () => {
  const turns = new Turns(1);
  const end = Promise.withResolvers<void>();
  const failing = turns.take(() => end.promise, never);
  const leaving = new AbortController();
  const left = turns.take(async () => 'ran', leaving.signal);
  const next = turns.take(async () => 'ran', never);
  leaving.abort(new Error('enough'));
  await expect(left).rejects.toThrow('enough');
  end.reject(new Error('on purpose'));
  await expect(failing).rejects.toThrow('on purpose');
  expect(await next).toBe('ran');
  await expect(turns.take(async () => 'ran', AbortSignal.abort(new Error('late')))).rejects.toThrow('late');
});
