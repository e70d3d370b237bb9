import { styleText } from 'node:util';
import type { CapsuleTrace } from '@wrenn/protocol/rest/capsule';
import { formatDuration } from './format.ts';
import { type Column, formatTable } from './table.ts';

type TraceStep = CapsuleTrace['steps'][number];

/** One line of the picture. */
interface Line {
  readonly name: string;
  readonly where: string;
  readonly durationMs: number;
  readonly bar: string;
}

/** Whoever reads without colours tells the two by these. */
const BLOCKS = { host: '█', 'control-plane': '▒' } as const;
const MIN_BAR_WIDTH = 10;
const MAX_BAR_WIDTH = 80;
const MAX_NAME_WIDTH = 32;
/** Time in no step that is worth a line of its own. */
const MIN_GAP_SHARE = 0.01;

/**
 * The timeline of a start as text: one line a step, in the order of their beginnings, with a bar from where it began to
 * where it ended.
 *
 * @param width columns of the terminal
 */
export function drawWaterfall(trace: CapsuleTrace, width: number): string {
  const { duration_ms: totalMs } = trace;
  const steps = [...trace.steps].sort((a, b) => a.offset_ms - b.offset_ms || b.duration_ms - a.duration_ms);
  const gapMs = totalMs - coveredMs(steps, totalMs);
  const linesWith = (barWidth: number): Line[] => [
    ...steps.map((step) => toLine(step, totalMs, barWidth)),
    ...(gapMs >= totalMs * MIN_GAP_SHARE && gapMs > 0
      ? [{ name: '(in no step)', where: '', durationMs: gapMs, bar: '' }]
      : []),
    { name: 'all', where: '', durationMs: totalMs, bar: '' },
  ];
  const besideBar = widthOf(formatTable(columns(totalMs, ''), linesWith(0)));
  const barWidth = Math.min(MAX_BAR_WIDTH, Math.max(MIN_BAR_WIDTH, width - besideBar - 2));
  return formatTable(columns(totalMs, axis(totalMs, barWidth)), linesWith(barWidth));
}

function columns(totalMs: number, barTitle: string): Column<Line>[] {
  return [
    { title: 'STEP', value: ({ name }) => name },
    { title: 'BY', value: ({ where }) => where },
    { title: 'TIME', value: ({ durationMs }) => formatStep(durationMs), align: 'right' },
    { title: 'SHARE', value: ({ durationMs }) => formatShare(durationMs, totalMs), align: 'right' },
    { title: barTitle, value: ({ bar }) => bar },
  ];
}

function toLine({ name, where, offset_ms, duration_ms }: TraceStep, totalMs: number, barWidth: number): Line {
  const short = name.length > MAX_NAME_WIDTH ? `${name.slice(0, MAX_NAME_WIDTH - 1)}…` : name;
  const cell = (ms: number) => (totalMs > 0 ? Math.min(barWidth, Math.max(0, (ms / totalMs) * barWidth)) : 0);
  // What took no time worth a cell is seen all the same.
  const from = Math.min(Math.floor(cell(offset_ms)), Math.max(0, barWidth - 1));
  const to = Math.max(from + 1, Math.round(cell(offset_ms + duration_ms)));
  const blocks = BLOCKS[where].repeat(to - from);
  const colour = where === 'host' ? 'green' : 'cyan';
  return {
    name: short,
    where: where === 'host' ? 'host' : 'control plane',
    durationMs: duration_ms,
    bar: barWidth === 0 ? '' : ' '.repeat(from) + styleText(colour, blocks, { stream: process.stdout }),
  };
}

/** `0` at the left end of the bars and the whole time at their right end. */
function axis(totalMs: number, width: number): string {
  return `0${formatStep(totalMs).padStart(width - 1)}`;
}

/** Time within the whole that at least one step covers; steps may overlap. */
function coveredMs(steps: readonly TraceStep[], totalMs: number): number {
  let covered = 0;
  let until = 0;
  for (const { offset_ms, duration_ms } of steps) {
    const end = Math.min(totalMs, offset_ms + duration_ms);
    covered += Math.max(0, end - Math.max(until, offset_ms));
    until = Math.max(until, end);
  }
  return covered;
}

/** Short steps are told apart by tenths. */
function formatStep(ms: number): string {
  return ms < 9.95 ? `${ms.toFixed(1)} ms` : formatDuration(ms);
}

function formatShare(ms: number, totalMs: number): string {
  return totalMs > 0 ? `${Math.round((ms / totalMs) * 100)}%` : '-';
}

function widthOf(table: string): number {
  return Math.max(...table.split('\n').map((line) => [...line].length));
}
