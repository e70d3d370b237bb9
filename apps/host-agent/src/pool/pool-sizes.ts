/** What one kind of VM asks of the pool. */
export interface PoolShare {
  readonly key: string;
  /** How many VMs should wait, if there is room. */
  readonly wanted: number;
  /** What one of them may take of the host's memory. */
  readonly memoryMb: number;
}

/**
 * How many VMs of each kind may wait when all together may take `maxMb`. Room is given out one VM at a time, to the kind
 * that has the smallest part of what it wants, so that a large burst of one kind leaves something to the others.
 */
export function poolSizes(shares: readonly PoolShare[], maxMb: number): Map<string, number> {
  const sizes = new Map(shares.map(({ key }) => [key, 0]));
  const part = ({ key, wanted }: PoolShare) => (sizes.get(key) ?? 0) / wanted;
  let leftMb = maxMb;
  for (;;) {
    const open = shares.filter(({ key, wanted, memoryMb }) => (sizes.get(key) ?? 0) < wanted && memoryMb <= leftMb);
    const [first, ...others] = open;
    if (!first) return sizes;
    const next = others.reduce((least, share) => (part(share) < part(least) ? share : least), first);
    sizes.set(next.key, (sizes.get(next.key) ?? 0) + 1);
    leftMb -= next.memoryMb;
  }
}
