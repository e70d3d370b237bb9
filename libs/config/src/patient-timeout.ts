/** A timer that fires so late says that the machine, or this program, stood still. */
const STALL_MS = 100;

export interface PatientTimeout extends Disposable {
  /** Fires when the time is over, with a TimeoutError. */
  readonly signal: AbortSignal;
}

/**
 * A limit of time for an answer from elsewhere. Where this program stood still meanwhile, the time begins anew: who would
 * have answered may have stood still as well. An answer that has arrived is read before the signal fires.
 */
export function patientTimeout(limitMs: number): PatientTimeout {
  const over = new AbortController();
  let timer: NodeJS.Timeout;
  let immediate: NodeJS.Immediate | undefined;
  const begin = () => {
    const dueMs = performance.now() + limitMs;
    timer = setTimeout(() => {
      if (performance.now() - dueMs > STALL_MS) return begin();
      immediate = setImmediate(() => {
        over.abort(new DOMException(`There was no answer within ${limitMs} ms`, 'TimeoutError'));
      });
    }, limitMs);
  };
  begin();
  return {
    signal: over.signal,
    [Symbol.dispose]: () => {
      clearTimeout(timer);
      clearImmediate(immediate);
    },
  };
}
