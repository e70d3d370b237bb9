import { CliError } from '../cli-error.ts';

/**
 * Runs the parts of one transfer at the same time. When one fails the others are aborted; rejects once all have ended,
 * with the failure that says most: a broken pipe is only the echo of another one.
 */
export async function together(
  signal: AbortSignal,
  ...parts: ((signal: AbortSignal) => Promise<unknown>)[]
): Promise<void> {
  const stop = new AbortController();
  const linked = AbortSignal.any([signal, stop.signal]);
  const failures: unknown[] = [];
  await Promise.all(
    parts.map((part) =>
      part(linked).catch((error) => {
        failures.push(error);
        stop.abort(error);
      }),
    ),
  );
  signal.throwIfAborted();
  if (failures.length > 0) throw failures.find((error) => error instanceof CliError) ?? failures[0];
}
