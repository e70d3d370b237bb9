export interface TraceStep {
  readonly name: string;
  readonly durationMs: number;
  /** From the making of the trace to the beginning of the step. */
  readonly offsetMs: number;
}

/** Measures the steps of one verb. Steps that run side by side each count their own time. */
export class Trace {
  readonly steps: TraceStep[] = [];
  readonly #began = performance.now();

  async step<T>(name: string, action: () => Promise<T>): Promise<T> {
    const started = performance.now();
    try {
      return await action();
    } finally {
      this.add(name, started);
    }
  }

  /** A step that ends now. */
  add(name: string, started: number): void {
    const durationMs = round(performance.now() - started);
    this.steps.push({ name, durationMs, offsetMs: round(started - this.#began) });
  }
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}
