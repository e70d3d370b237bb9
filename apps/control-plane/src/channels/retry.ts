const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;

/** Before each repeat: about a day all together. */
const DELAYS_MS = [
  10 * SECOND_MS,
  30 * SECOND_MS,
  2 * MINUTE_MS,
  10 * MINUTE_MS,
  30 * MINUTE_MS,
  HOUR_MS,
  2 * HOUR_MS,
  4 * HOUR_MS,
  8 * HOUR_MS,
  8 * HOUR_MS,
];
/** Part of a delay by which it is longer or shorter, so that what failed together does not come back together. */
const JITTER = 0.2;

/**
 * How long to wait after a failure.
 *
 * @param retries failures before this one
 * @param random from 0 to 1
 * @returns milliseconds; undefined: it is given up
 */
export function retryDelayMs(retries: number, random: number = Math.random()): number | undefined {
  const delayMs = DELAYS_MS[retries];
  return delayMs === undefined ? undefined : Math.round(delayMs * (1 + JITTER * (2 * random - 1)));
}
