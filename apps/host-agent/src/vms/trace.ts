export interface TraceStep {
  readonly name: string;
  readonly durationMs: number;
}

/** Measures the steps of one start. Steps that run side by side each count their own time. */
export class Trace {
  readonly steps: TraceStep[] = [];

  async step<T>(name: string, action: () => Promise<T>): Promise<T> {
    const started = performance.now();
    try {
      return await action();
    } finally {
      this.add(name, performance.now() - started);
    }
  }

  add(name: string, durationMs: number): void {
    this.steps.push({ name, durationMs: Math.round(durationMs * 100) / 100 });
  }
}
