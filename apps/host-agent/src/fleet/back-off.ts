export interface BackOff {
  readonly firstMs: number;
  readonly lastMs: number;
}

/**
 * How long to wait after so many failures in a row, in milliseconds: twice as long each time, and up to half of it less
 * by chance, so that hosts that lost a control plane together do not come back together.
 */
export function backOffMs({ firstMs, lastMs }: BackOff, failures: number): number {
  const fullMs = Math.min(firstMs * 2 ** Math.min(failures - 1, 30), lastMs);
  return fullMs * (0.5 + Math.random() / 2);
}
