import type { WriteStream } from 'node:tty';
import type { OnProgress, ProgressEvent } from './progress.ts';

const FRAMES = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
const FRAME_MS = 100;

/** Shows the steps of a build. Dispose it before anything else is written. */
export interface ProgressOutput extends Disposable {
  readonly onProgress: OnProgress;
}

/** One line a step that has ended; on a terminal also a last line that lives while a step runs. */
export function progressOutput(stream: WriteStream): ProgressOutput {
  return stream.isTTY ? liveOutput(stream) : plainOutput((line) => stream.write(`${line}\n`));
}

/** For logs: a line when a step begins and one when it ends. */
export function plainOutput(writeLine: (line: string) => void): ProgressOutput {
  return {
    onProgress(event) {
      if (event.state !== 'start') writeLine(endLine(event));
      else if (event.detail === undefined || event.elapsedMs === 0) {
        writeLine(`  ${event.step}${event.detail === undefined ? '' : `: ${event.detail}`} ...`);
      }
    },
    [Symbol.dispose]() {},
  };
}

function liveOutput(stream: WriteStream): ProgressOutput {
  let current: { event: ProgressEvent; since: number } | undefined;
  let frame = 0;
  const clear = () => stream.write('\r\u001b[K');
  const draw = () => {
    if (!current) return;
    frame = (frame + 1) % FRAMES.length;
    const { event, since } = current;
    const text = `${FRAMES[frame]} ${event.step} ${seconds(performance.now() - since)} ${event.detail ?? ''}`;
    stream.write(`\r\u001b[K${text.slice(0, Math.max(20, stream.columns - 1))}`);
  };
  const timer = setInterval(draw, FRAME_MS);
  timer.unref();
  return {
    onProgress(event) {
      if (event.state === 'start') {
        current = { event, since: performance.now() - event.elapsedMs };
        return;
      }
      current = undefined;
      clear();
      stream.write(`${endLine(event)}\n`);
    },
    [Symbol.dispose]() {
      clearInterval(timer);
      if (current) clear();
    },
  };
}

function endLine({ step, state, detail, elapsedMs }: ProgressEvent): string {
  const told = detail === undefined ? '' : `: ${detail}`;
  return `✓ ${step}${told} ${state === 'cached' ? '(unchanged)' : `(${seconds(elapsedMs)})`}`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
