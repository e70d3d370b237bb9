import { WrennError } from '@wrenn/protocol/errors';

/** Runs something, and tells how it ended: `ok` or a code of the error catalogue. */
export async function observed<T>(
  record: (outcome: string, durationMs: number) => void,
  run: () => Promise<T>,
): Promise<T> {
  const started = performance.now();
  try {
    const result = await run();
    record('ok', performance.now() - started);
    return result;
  } catch (error) {
    record(codeOf(error), performance.now() - started);
    throw error;
  }
}

/** As metrics name it. */
export function codeOf(error: unknown): string {
  return error instanceof WrennError ? error.code : 'internal_error';
}
