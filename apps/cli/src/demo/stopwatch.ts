import { formatDuration } from '../terminal/format.ts';
import { formatTable } from '../terminal/table.ts';

/** Runs named steps one after the other and remembers how long each took. */
export interface Stopwatch {
  step<T>(title: string, work: () => Promise<T>): Promise<T>;
  /** The steps that ended, with their times and the sum. */
  table(): string;
}

export function startStopwatch(onStep: (title: string) => void): Stopwatch {
  const steps: { title: string; elapsedMs: number }[] = [];
  return {
    async step(title, work) {
      onStep(title);
      const started = performance.now();
      const result = await work();
      steps.push({ title, elapsedMs: performance.now() - started });
      return result;
    },
    table() {
      const total = steps.reduce((sum, { elapsedMs }) => sum + elapsedMs, 0);
      return formatTable(
        [
          { title: 'STEP', value: ({ title }) => title },
          { title: 'TIME', value: ({ elapsedMs }) => formatDuration(elapsedMs), align: 'right' },
        ],
        [...steps, { title: 'all', elapsedMs: total }],
      );
    },
  };
}
