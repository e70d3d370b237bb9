import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { WebSocket } from 'ws';
import { z } from 'zod';

const ANSWER_TIMEOUT_MS = 30_000;

/** What a process of Node holds after its garbage was collected. */
export interface ProcessUse {
  /** Bytes of live JavaScript objects and of the buffers behind them. */
  readonly liveBytes: number;
  /** Memory that the process has of the machine, in bytes. */
  readonly residentBytes: number;
  /** Open files, sockets and other things with a descriptor. */
  readonly descriptors: number;
}

const usageSchema = z.object({
  usedSize: z.number(),
  embedderHeapUsedSize: z.number().default(0),
  backingStorageSize: z.number().default(0),
});

/**
 * Measures a process that was started with `--inspect` and writes its log there.
 *
 * @throws Error when its inspector does not answer
 */
export async function measureProcess(pid: number, logFile: string): Promise<ProcessUse> {
  const log = await readFile(logFile, 'utf8');
  const url = [...log.matchAll(/Debugger listening on (ws:\S+)/g)].at(-1)?.[1];
  if (!url) throw new Error(`${logFile} names no inspector`);
  const socket = new WebSocket(url);
  try {
    await once(socket, 'open', { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    // Twice: finalizers of the first may free more.
    await ask(socket, 1, 'HeapProfiler.collectGarbage');
    await ask(socket, 2, 'HeapProfiler.collectGarbage');
    const { usedSize, embedderHeapUsedSize, backingStorageSize } = usageSchema.parse(
      await ask(socket, 3, 'Runtime.getHeapUsage'),
    );
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    return {
      liveBytes: usedSize + embedderHeapUsedSize + backingStorageSize,
      residentBytes: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024,
      // The inspector's own connection is one of them, at every measurement.
      descriptors: (await readdir(`/proc/${pid}/fd`)).length,
    };
  } finally {
    socket.terminate();
  }
}

async function ask(socket: WebSocket, id: number, method: string): Promise<unknown> {
  const signal = AbortSignal.timeout(ANSWER_TIMEOUT_MS);
  socket.send(JSON.stringify({ id, method }));
  for (;;) {
    const [data] = await once(socket, 'message', { signal });
    const answer = JSON.parse(String(data)) as { id?: number; result?: unknown; error?: { message: string } };
    if (answer.id !== id) continue;
    if (answer.error) throw new Error(`${method}: ${answer.error.message}`);
    return answer.result;
  }
}

/** Slope of the line through the points that fits them best, in units of y a unit of x. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [x, y] = [mean(points.map((point) => point[0])), mean(points.map((point) => point[1]))];
  const spread = points.reduce((sum, point) => sum + (point[0] - x) ** 2, 0);
  return points.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0) / spread;
}
