/**
 * Waits for all of them, also when one fails: what the others make meanwhile must be known before it can be undone.
 *
 * @throws the first failure, in the order of the list.
 */
export async function settleAll<T extends readonly unknown[]>(
  promises: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}
