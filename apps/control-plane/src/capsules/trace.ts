import type { TraceStep } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { CapsuleTrace } from '@wrenn/protocol/rest/capsule';
import { eq } from 'drizzle-orm';
import { z } from 'zod';
import type { Db } from '../database/database.ts';
import { capsules } from '../database/schema.ts';

/** Milliseconds since the epoch, with fractions: one line of time for a request and for whoever goes on with it. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** When a request came, as its operation keeps it. */
export const traceArgsSchema = z.object({
  receivedAtMs: z.number(),
  /** The host was chosen, and the operation was written down. */
  placedAtMs: z.number(),
});

type Step = CapsuleTrace['steps'][number];

/** Collects the timeline of one start, from the request on. */
export class StartTrace {
  readonly #args: z.output<typeof traceArgsSchema>;
  readonly #steps: Step[] = [];

  constructor(args: z.output<typeof traceArgsSchema>) {
    this.#args = args;
    this.#add('place', 'control-plane', args.receivedAtMs, args.placedAtMs);
    this.#add('queue', 'control-plane', args.placedAtMs, nowMs());
  }

  /** Runs a step of the control plane's. A failed one ends the start, and the timeline with it. */
  async measure<T>(name: string, run: () => Promise<T>): Promise<T> {
    const beginMs = nowMs();
    const result = await run();
    this.#add(name, 'control-plane', beginMs, nowMs());
    return result;
  }

  /** The same for a call to the host, whose answer tells of its own steps, counted from the beginning of the verb. */
  async measureHost<T>(run: () => Promise<T>, stepsOf: (answer: T) => readonly TraceStep[]): Promise<T> {
    const beginMs = nowMs();
    const answer = await this.measure('host', run);
    this.addHostSteps(stepsOf(answer), beginMs);
    return answer;
  }

  addHostSteps(steps: readonly TraceStep[], beginMs: number): void {
    for (const { name, offsetMs, durationMs } of steps) {
      this.#add(name, 'host', beginMs + offsetMs, beginMs + offsetMs + durationMs);
    }
  }

  /** To go on with apart from this one: what a fork does to its source is part of each child's timeline. */
  copy(): StartTrace {
    const copy = new StartTrace(this.#args);
    copy.#steps.splice(0, copy.#steps.length, ...this.#steps);
    return copy;
  }

  /** The timeline up to now. */
  finish(kind: CapsuleTrace['kind']): CapsuleTrace {
    return {
      kind,
      started_at: new Date(this.#args.receivedAtMs).toISOString(),
      duration_ms: round(nowMs() - this.#args.receivedAtMs),
      steps: this.#steps.toSorted((a, b) => a.offset_ms - b.offset_ms),
    };
  }

  #add(name: string, where: Step['where'], beginMs: number, endMs: number): void {
    const offset_ms = round(beginMs - this.#args.receivedAtMs);
    this.#steps.push({ name, where, offset_ms, duration_ms: round(Math.max(0, endMs - beginMs)) });
  }
}

function round(ms: number): number {
  return Math.round(ms * 100) / 100;
}

/** Keeps the timeline of a capsule's last start. It is no change of the capsule: nothing else moves. */
export async function recordTrace(db: Db, capsuleId: string, trace: CapsuleTrace): Promise<void> {
  await db.update(capsules).set({ trace }).where(eq(capsules.id, capsuleId));
}
