/** One step of a build. `cached`: its result was there already. `elapsedMs` is 0 for `start`. */
export interface ProgressEvent {
  readonly step: string;
  readonly state: 'start' | 'done' | 'cached';
  readonly detail?: string;
  readonly elapsedMs: number;
}

export type OnProgress = (event: ProgressEvent) => void;

/** Runs a step and reports its start and end. What `work` returns as `detail` is told with the end. */
export async function reportStep<Result extends { detail?: string; cached?: boolean }>(
  onProgress: OnProgress,
  step: string,
  work: (note: (detail: string) => void) => Promise<Result>,
): Promise<Result> {
  const startedAt = performance.now();
  onProgress({ step, state: 'start', elapsedMs: 0 });
  const note = (detail: string) =>
    onProgress({ step, state: 'start', detail, elapsedMs: performance.now() - startedAt });
  const result = await work(note);
  onProgress({
    step,
    state: result.cached === true ? 'cached' : 'done',
    ...(result.detail === undefined ? {} : { detail: result.detail }),
    elapsedMs: performance.now() - startedAt,
  });
  return result;
}
