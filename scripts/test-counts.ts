/** How tests ended. Skipped ones are named, because a skip has to say why; failures are named with their errors. */
export interface Counts {
  readonly passed: number;
  readonly failures: readonly string[];
  readonly skipped: readonly string[];
}

export const NOTHING: Counts = { passed: 0, failures: [], skipped: [] };

export function addCounts(a: Counts, b: Counts): Counts {
  return {
    passed: a.passed + b.passed,
    failures: [...a.failures, ...b.failures],
    skipped: [...a.skipped, ...b.skipped],
  };
}

/** `N passed, N failed, N skipped`. */
export function summaryLine({ passed, failures, skipped }: Counts): string {
  return `${passed} passed, ${failures.length} failed, ${skipped.length} skipped`;
}

/** What is said when all tests have ended: whoever reads only the end of a long log reads what failed, and why. */
export function closingLines(counts: Counts): string[] {
  return [
    ...counts.skipped.map((name) => `skipped: ${name}`),
    ...counts.failures.map((failure) => `failed: ${failure}`),
    summaryLine(counts),
  ];
}
