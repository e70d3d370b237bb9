import type { Api, Json } from './api.ts';
import type { Testimony } from './proof.ts';

/** What is known of one capsule. */
export interface Known {
  readonly id: string;
  /** Of the file that it carries; undefined until it was prepared. */
  sum: string | undefined;
  /** How far each program had counted in a state that the capsule may go back to: it never shows less. */
  readonly floors: Map<string, number>;
  /** The program that it was last seen with, and that its next complete sleep keeps. */
  program: string | undefined;
  /** False from a start without memory until the next sleep that was acknowledged: then no program need be there. */
  memoryKept: boolean;
  /** The API has said that it sleeps, at least once. From then on there is a state that it must come back from. */
  slept: boolean;
  /** The API has said that it sleeps, and nobody has asked for it to be woken since. */
  asleep: boolean;
  /** Somebody works with it. */
  taken: boolean;
  /** It was asked to be destroyed. */
  doomed: boolean;
}

/** A capsule that is not what it must be. */
export interface Loss {
  readonly id: string;
  readonly why: string;
}

/** States that a capsule is in only while something is done to it, or while its host is silent. */
export const PASSING = ['pending', 'starting', 'pausing', 'resuming', 'hibernating', 'forking', 'stopping', 'missing'];
const LIVING = [...PASSING, 'running', 'paused', 'hibernated', 'error'];

/** All capsules of a run. */
export class Population {
  readonly #known = new Map<string, Known>();
  /** Capsules whose hypervisor was killed since they last started. */
  readonly shot = new Set<string>();
  readonly losses: Loss[] = [];

  get(id: string): Known | undefined {
    return this.#known.get(id);
  }

  all(): Known[] {
    return [...this.#known.values()].filter(({ doomed }) => !doomed);
  }

  add(id: string, from?: Known): Known {
    const known: Known = {
      id,
      sum: from?.sum,
      floors: new Map(from?.floors),
      program: from?.program,
      memoryKept: from?.memoryKept ?? true,
      slept: false,
      asleep: false,
      taken: false,
      doomed: false,
    };
    this.#known.set(id, known);
    return known;
  }

  lose(known: Known, why: string): void {
    known.doomed = true;
    this.losses.push({ id: known.id, why });
  }

  /**
   * All living capsules as the API lists them; undefined when it does not answer. Takes in what it did not know.
   *
   * @param insist asks again until it answers, for some minutes
   */
  async look(api: Api, { insist = false } = {}): Promise<Json[] | undefined> {
    const path = `/v1/capsules?status=${LIVING.join(',')}`;
    const answer = await (insist ? api.insist('list', 'GET', path) : api.call('list', 'GET', path));
    if (answer.kind !== 'done') return undefined;
    for (const { id, status } of answer.body) {
      const known = this.#known.get(id) ?? this.add(id);
      if (!known.taken && (status === 'paused' || status === 'hibernated')) {
        known.slept = true;
        known.asleep = true;
      }
    }
    return answer.body;
  }

  /**
   * Compares what a running capsule says with what it must say.
   *
   * @returns false when it is lost
   */
  judge(known: Known, { sum, program, count, moving }: Testimony, kept: boolean): boolean {
    const problems = [
      ...(known.sum !== undefined && sum !== known.sum ? [`its file is ${sum}, not ${known.sum}`] : []),
      ...(kept && known.memoryKept ? this.#problemsOfProgram(known, program, count, moving) : []),
    ];
    if (problems.length > 0) this.lose(known, problems.join(' and '));
    else if (moving) known.program = program;
    return problems.length === 0;
  }

  #problemsOfProgram(known: Known, program: string, count: number, moving: boolean): string[] {
    if (known.floors.size === 0) return [];
    const floor = known.floors.get(program);
    if (!moving) return ['its program does not run'];
    if (floor === undefined) return [`the program ${program} is none that it ever had`];
    return count < floor ? [`${program} is at ${count} and was at ${floor} when it slept`] : [];
  }
}
