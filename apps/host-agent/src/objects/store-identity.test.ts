import { expect, it } from 'vitest';
import { storeIdentity } from './store-identity.ts';
import { STORE_KINDS } from './testing/stores.ts';

const signal = new AbortController().signal;

it('is the same for all that use a store, those that are the first at once too, and no other store has it', async () => {
  const [kind] = STORE_KINDS;
  if (!kind) throw new Error('there is no kind of store');
  await using one = await kind.start();
  await using other = await kind.start();
  await Promise.all(Array.from({ length: 5 }, () => storeIdentity(one.store, signal)));
  const seen = await Promise.all(Array.from({ length: 5 }, () => storeIdentity(one.store, signal)));
  expect(new Set(seen).size).toBe(1);
  expect(seen[0]).toMatch(/^[0-9a-f]{24}$/);
  expect(await storeIdentity(other.store, signal)).not.toBe(seen[0]);
});
