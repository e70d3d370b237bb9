const ENTER = [0x0d, 0x0a];
const TILDE = 0x7e;
const DOT = 0x2e;

/** What to pass on of some keys, and whether the person wants to leave. */
export interface EscapeResult {
  readonly pass: Uint8Array;
  readonly leave: boolean;
}

/**
 * Finds "Enter, ~, ." in what is typed, as ssh does: the way out of a guest that no longer answers. A ~ after Enter is
 * held back until the next key; `~~` passes one on.
 */
export function watchEscape(): (keys: Uint8Array) => EscapeResult {
  let state: 'line-start' | 'tilde' | 'text' = 'line-start';
  return (keys) => {
    const pass: number[] = [];
    for (const key of keys) {
      if (state === 'tilde') {
        if (key === DOT) return { pass: Uint8Array.from(pass), leave: true };
        pass.push(TILDE);
        state = 'text';
        if (key === TILDE) continue;
      } else if (state === 'line-start' && key === TILDE) {
        state = 'tilde';
        continue;
      }
      pass.push(key);
      state = ENTER.includes(key) ? 'line-start' : 'text';
    }
    return { pass: Uint8Array.from(pass), leave: false };
  };
}
