/**
 * What `map` makes of each item, in the order of the items, with up to `ahead` of them in work at once. Where it fails
 * or its reader leaves, it takes no further items and waits for those in work.
 */
export async function* mapAhead<T, R>(
  items: AsyncIterable<T> | Iterable<T>,
  ahead: number,
  map: (item: T) => Promise<R>,
): AsyncGenerator<R, void, undefined> {
  const inWork: Promise<R>[] = [];
  try {
    for await (const item of items) {
      const result = map(item);
      result.catch(() => {
        // It is thrown when its turn comes.
      });
      inWork.push(result);
      if (inWork.length < ahead) continue;
      yield await (inWork.shift() as Promise<R>);
    }
    for (let next = inWork.shift(); next; next = inWork.shift()) yield await next;
  } finally {
    await Promise.allSettled(inWork);
  }
}
