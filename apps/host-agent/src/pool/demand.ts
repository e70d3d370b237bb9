/** Creates of one kind that come within this time are one burst, which the pool should serve whole. */
const BURST_MS = 10_000;
/** A burst counts less the longer ago it was, and after this time not at all. */
const MEMORY_MS = 600_000;
/** Older ones change nothing: no pool holds more VMs than this of one kind. */
const MOST_TAKES = 512;

/** How often VMs of one kind were asked for lately. Times are milliseconds of one steady clock. */
export class Demand {
  #askedMs: number[] = [];

  note(nowMs: number): void {
    this.#askedMs.push(nowMs);
    if (this.#askedMs.length > 2 * MOST_TAKES) this.#askedMs = this.#askedMs.slice(-MOST_TAKES);
  }

  /** How many VMs should wait for the next burst; 0 when nobody has asked lately. */
  wanted(nowMs: number): number {
    this.#askedMs = this.#askedMs.filter((askedMs) => nowMs - askedMs < MEMORY_MS);
    return burstSize(this.#askedMs, nowMs);
  }
}

/**
 * The largest number of creates in any 10 s of the last 10 minutes, each window weighted by how long ago it ended:
 * one of now counts in full, one of 5 minutes ago half.
 *
 * @param askedMs in ascending order
 */
export function burstSize(askedMs: readonly number[], nowMs: number): number {
  let largest = 0;
  let first = 0;
  askedMs.forEach((endMs, last) => {
    while ((askedMs[first] ?? endMs) <= endMs - BURST_MS) first += 1;
    const weight = Math.max(0, 1 - (nowMs - endMs) / MEMORY_MS);
    largest = Math.max(largest, (last - first + 1) * weight);
  });
  return Math.ceil(largest);
}
