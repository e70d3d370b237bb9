import type { Cli } from '../cli.ts';
import { note } from '../cli.ts';
import { describeFailure, EXIT } from '../cli-error.ts';
import { startProgress } from '../terminal/progress.ts';

/**
 * Does the same to several capsules at once, with progress: `doing` is a word such as "pausing". A failure with one is
 * told, gives the exit code 1, and stops none of the others.
 *
 * @returns what `work` gave, in the order of `ids`, without the failures
 */
export async function eachCapsule<T>(
  cli: Cli,
  ids: readonly string[],
  doing: string,
  work: (id: string) => Promise<T>,
): Promise<T[]> {
  using progress = startProgress(`${doing} ${ids.length === 1 ? 'the capsule' : `${ids.length} capsules`}`);
  let done = 0;
  const outcomes = await Promise.allSettled(
    ids.map(async (id) => {
      try {
        return await work(id);
      } finally {
        done += 1;
        if (ids.length > 1) progress.update(`${done} of ${ids.length}`);
      }
    }),
  );
  cli.signal.throwIfAborted();
  const results: T[] = [];
  for (const outcome of outcomes) {
    if (outcome.status === 'fulfilled') results.push(outcome.value);
    else {
      note(describeFailure(outcome.reason, false).text);
      cli.exitCode = EXIT.error;
    }
  }
  return results;
}
