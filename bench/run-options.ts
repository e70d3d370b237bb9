import { parseArgs } from 'node:util';

export const SECTIONS = ['start', 'guest', 'memory', 'sleep', 'pool'] as const;
export type Section = (typeof SECTIONS)[number];

/** What a run of the benchmark takes. */
export interface RunOptions {
  /** Two samples of each: to see that it works, not what it measures. */
  readonly quick: boolean;
  readonly sections: ReadonlySet<Section>;
}

/**
 * Reads `[--quick] [section …]`; without sections, all.
 *
 * @throws TypeError for anything else
 */
export function runOptions(args: readonly string[]): RunOptions {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: { quick: { type: 'boolean', default: false } },
  });
  const sections = positionals.map((name) => {
    const section = SECTIONS.find((known) => known === name);
    if (!section) throw new TypeError(`there is no section ${name}; there are ${SECTIONS.join(', ')}`);
    return section;
  });
  return { quick: values.quick, sections: new Set(sections.length > 0 ? sections : SECTIONS) };
}

/** How many samples to take of what a full run takes `n` of. */
export function sampleCount({ quick }: RunOptions, n: number): number {
  return quick ? Math.min(n, 2) : n;
}

/** Whether the figures are of a whole run, which results are kept of. */
export function isWhole({ quick, sections }: RunOptions): boolean {
  return !quick && sections.size === SECTIONS.length;
}
