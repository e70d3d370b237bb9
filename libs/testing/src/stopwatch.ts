const TICK_MS = 20;
/** What lies between two ticks beyond this, the machine or this program stood still for. */
const STALL_MS = 100;

export interface Stopwatch extends Disposable {
  readonly elapsedMs: number;
}

/** Measures how long something takes, without what the machine or this program stood still for meanwhile. */
export function startStopwatch(): Stopwatch {
  let elapsedMs = 0;
  let lastMs = performance.now();
  const tick = () => {
    const nowMs = performance.now();
    elapsedMs += Math.min(nowMs - lastMs, STALL_MS);
    lastMs = nowMs;
    return elapsedMs;
  };
  const timer = setInterval(tick, TICK_MS);
  return {
    get elapsedMs() {
      return tick();
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}
