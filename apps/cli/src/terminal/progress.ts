import { formatBytes, formatDuration } from './format.ts';

/** Shows on stderr that something is under way. Disposing removes it. */
export interface Progress extends Disposable {
  /** Says more about where it is. */
  update(detail: string): void;
}

/** Where progress goes; a part of NodeJS.WriteStream. */
export interface ProgressStream {
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

/** What takes less than this is not worth a line. */
const QUIET_MS = 1000;
const REDRAW_MS = 200;
/** Without a terminal there is one line at the start and one in this time. */
const LINE_EVERY_MS = 15_000;
const CLEAR_LINE = '\r\u001b[K';

/** What is under way, oldest first. A terminal shows only the newest: there is one line for it. */
const underWay: { readonly drawn: () => boolean; readonly clear: () => void }[] = [];

/** Makes room for a whole line: what is drawn goes, and comes back with the next redraw. */
export function clearProgress(): void {
  for (const progress of underWay) if (progress.drawn()) progress.clear();
}

/** Begins to show `title`, from one second on: one changing line on a terminal, whole lines elsewhere. */
export function startProgress(title: string, stream: ProgressStream = process.stderr): Progress {
  const started = performance.now();
  let detail = '';
  let drawn = false;
  let lastLineAt = Number.NEGATIVE_INFINITY;
  const text = () => `${title} … ${formatDuration(performance.now() - started)}${detail && `  ${detail}`}`;
  const entry = {
    drawn: () => drawn,
    clear: () => {
      stream.write(CLEAR_LINE);
      drawn = false;
    },
  };
  underWay.push(entry);
  const timer = setInterval(() => {
    if (performance.now() - started < QUIET_MS) return;
    if (stream.isTTY) {
      if (underWay.at(-1) !== entry) return;
      stream.write(`${CLEAR_LINE}${truncate(text(), (stream.columns ?? 80) - 1)}`);
      drawn = true;
    } else if (performance.now() - lastLineAt >= LINE_EVERY_MS) {
      stream.write(`${text()}\n`);
      lastLineAt = performance.now();
    }
  }, REDRAW_MS);
  timer.unref();
  return {
    update(newDetail) {
      detail = newDetail;
    },
    [Symbol.dispose]() {
      clearInterval(timer);
      if (underWay.includes(entry)) underWay.splice(underWay.indexOf(entry), 1);
      if (drawn) entry.clear();
    },
  };
}

function truncate(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : `${characters.slice(0, Math.max(0, width - 1)).join('')}…`;
}

const BAR_WIDTH = 24;

/** How far a transfer is: a bar where its size is known, its speed, and the time that is left. */
export function transferDetail(doneBytes: number, totalBytes: number | undefined, elapsedMs: number): string {
  const bytesPerSecond = elapsedMs > 0 ? (doneBytes * 1000) / elapsedMs : 0;
  const speed = `${formatBytes(bytesPerSecond)}/s`;
  if (totalBytes === undefined) return `${formatBytes(doneBytes)}  ${speed}`;
  const share = totalBytes === 0 ? 1 : Math.min(1, doneBytes / totalBytes);
  const filled = Math.floor(share * BAR_WIDTH);
  const bar = `[${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}]`;
  const left = bytesPerSecond > 0 ? `  ${formatDuration(((totalBytes - doneBytes) / bytesPerSecond) * 1000)} left` : '';
  return `${bar} ${Math.floor(share * 100)}%  ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}  ${speed}${left}`;
}
