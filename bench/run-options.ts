import { parseArgs } from 'node:util';

export const SECTIONS = ['start', 'guest', 'memory', 'sleep', 'pool', 'identity', 'fleet'] as const;
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

const WITHOUT_MICRO_VMS: ReadonlySet<Section> = new Set(['identity', 'fleet']);

/** Whether anything is measured that takes microVMs. */
export function needsMicroVms({ sections }: RunOptions): boolean {
  return [...sections].some((section) => !WITHOUT_MICRO_VMS.has(section));
}

/** Whether every section is run, so that nothing measured before counts any more. */
export function isWhole({ quick, sections }: RunOptions): boolean {
  return !quick && sections.size === SECTIONS.length;
}

/** What is kept: of rows with the same name and unit the new one, in the place of the old. Each says which run it is of. */
export function mergeRows<R extends { readonly name: string; readonly unit: string }>(
  before: readonly R[],
  measured: readonly R[],
): R[] {
  const keyOf = ({ name, unit }: R) => `${name}, ${unit}`;
  const rows = new Map(before.map((row) => [keyOf(row), row]));
  for (const row of measured) rows.set(keyOf(row), row);
  return [...rows.values()];
}
