import { expect, it } from 'vitest';
import { PendingInput } from './pending-input.ts';

it('keeps what has not arrived, wherever an acknowledgement cuts it', () => {
  const input = new PendingInput();
  for (const text of ['abc', 'de', 'fghi']) input.push(Buffer.from(text));
  const rest = () => Buffer.concat(input.chunks).toString();
  input.acknowledge(1);
  expect([input.offset, rest()]).toEqual([1, 'bcdefghi']);
  input.acknowledge(5);
  expect([input.offset, rest()]).toEqual([5, 'fghi']);
  input.acknowledge(2);
  expect([input.offset, rest()]).toEqual([5, 'fghi']);
  input.acknowledge(9);
  expect([input.offset, rest()]).toEqual([9, '']);
});

it('makes the one who writes wait until enough has arrived', async () => {
  const input = new PendingInput();
  input.push(Buffer.alloc(2 * 1024 * 1024));
  let hasRoom = false;
  const room = input.room().then(() => {
    hasRoom = true;
  });
  input.acknowledge(10);
  await Promise.resolve();
  expect(hasRoom).toBe(false);
  input.acknowledge(2 * 1024 * 1024);
  await room;
});
