import { WrennError } from '@wrenn/protocol/errors';

const UNDO_TIMEOUT_MS = 60_000;

/**
 * Undoes what a failed step left in a store, whatever signal ended the step, and throws the step's error. Where the
 * undoing fails too, the error's cause names both; what stays then is removed by the next one with the same key.
 */
export async function undoAndThrow(error: unknown, undo: (signal: AbortSignal) => Promise<void>): Promise<never> {
  try {
    await undo(AbortSignal.timeout(UNDO_TIMEOUT_MS));
  } catch (undoError) {
    if (!(error instanceof WrennError)) throw error;
    const cause = new AggregateError([error, undoError], 'What was stored cannot be removed either');
    throw new WrennError(error.code, error.details, { cause });
  }
  throw error;
}
