/** The promise's outcome, unless the signal fires first: then its reason. The work behind the promise goes on. */
export function rejectOnAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      promise.catch(() => {
        // Whoever began the work hears of its failure.
      });
      reject(signal.reason);
      return;
    }
    const leave = () => reject(signal.reason);
    signal.addEventListener('abort', leave, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave));
  });
}
