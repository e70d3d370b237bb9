import { randomBytes } from 'node:crypto';
import type { ObjectStore } from './object-store.ts';

const PREFIX = 'store/';

/**
 * What tells stores apart, whatever address each host knows them by: hosts whose stores answer the same can give each
 * other files. Made by the first that asks. Where two are the first at once, the lesser one is it from then on.
 *
 * @throws object_store_failed, or the signal's reason
 */
export async function storeIdentity(store: ObjectStore, signal: AbortSignal): Promise<string> {
  const known = await least(store, signal);
  if (known !== undefined) return known;
  await store.put(`${PREFIX}${randomBytes(12).toString('hex')}`, Buffer.from('\n'), 1, signal);
  const made = await least(store, signal);
  if (made === undefined) throw new Error('A store does not list what was put into it');
  return made;
}

async function least(store: ObjectStore, signal: AbortSignal): Promise<string | undefined> {
  const names: string[] = [];
  for await (const key of store.list(PREFIX, signal)) names.push(key.slice(PREFIX.length));
  return names.toSorted()[0];
}
