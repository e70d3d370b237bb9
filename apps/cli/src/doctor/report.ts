import { EXIT } from '../cli-error.ts';
import type { Finding } from './finding.ts';

export interface Section {
  readonly title: string;
  readonly findings: readonly Finding[];
}

const MARKS = { ok: '✓', warn: '!', fail: '✗' } as const;

/** One line a finding, remedies below. `colour` paints the mark of a status. */
export function formatFindings(
  sections: readonly Section[],
  colour: (status: Finding['status'], text: string) => string,
): string {
  const width = Math.max(...sections.flatMap(({ findings }) => findings.map(({ name }) => name.length)));
  return sections
    .filter(({ findings }) => findings.length > 0)
    .map(({ title, findings }) => [title, ...findings.flatMap((finding) => linesOf(finding, width, colour))].join('\n'))
    .join('\n\n');
}

function linesOf(
  { name, status, detail, remedy }: Finding,
  width: number,
  colour: (status: Finding['status'], text: string) => string,
): string[] {
  const line = `  ${colour(status, MARKS[status])} ${name.padEnd(width)}  ${detail}`;
  if (status === 'ok' || remedy === undefined) return [line];
  return [line, `${' '.repeat(width + 6)}→ ${remedy}`];
}

/** 1 when something that is needed failed. */
export function exitCodeFor(findings: readonly Finding[]): number {
  return findings.some(({ status }) => status === 'fail') ? EXIT.error : EXIT.ok;
}
