import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { ensureGuestImages } from '@wrenn/guest-image/build';
import type { ProgressEvent } from '@wrenn/guest-image/progress';
import { formatDuration } from '../terminal/format.ts';
import { startProgress } from '../terminal/progress.ts';

/** What takes less than this is not worth a line of its own. */
const WORTH_A_LINE_MS = 1000;

/** Builds the guest kernel and images that are missing, and shows each step while it runs. */
export async function ensureImagesWithProgress(
  dir: WrennDir,
  printLine: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  using steps = new DisposableStack();
  const running = new Map<string, ReturnType<typeof startProgress>>();
  await ensureGuestImages({
    wrennDir: dir,
    signal,
    onProgress: ({ step, state, detail, elapsedMs }: ProgressEvent) => {
      if (state === 'start') {
        const progress = running.get(step) ?? steps.use(startProgress(step));
        running.set(step, progress);
        if (detail) progress.update(detail);
        return;
      }
      running.get(step)?.[Symbol.dispose]();
      running.delete(step);
      if (elapsedMs >= WORTH_A_LINE_MS)
        printLine(`${step}${detail ? `: ${detail}` : ''} (${formatDuration(elapsedMs)})`);
    },
  });
}
