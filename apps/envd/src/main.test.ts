import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { quietPort } from '@wrenn/testing/quiet-port';
import { until } from '@wrenn/testing/until';
import { expect, it } from 'vitest';

const WATCHED_MS = 1000;
/** Of the kernel, whatever the processor. */
const TICK_MS = 10;

it.each([{ flags: [] }, { flags: ['--guest'] }])(
  'idles although nobody reads its log any more: $flags',
  async ({ flags }) => {
    const port = await quietPort();
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, 'main.ts'), '--port', String(port), '--host', '127.0.0.1', ...flags],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const exited = once(child, 'exit');
    try {
      child.stderr.destroy();
      const ask = () => fetch(`http://127.0.0.1:${port}/health`, { signal: AbortSignal.timeout(60_000) });
      await until('it answers', async () => (await ask().catch(() => undefined))?.ok === true);
      // An error that is logged for each error of the log would take all of a CPU.
      await until('it idles', async () => {
        const beforeMs = cpuMs(child.pid);
        await delay(WATCHED_MS);
        return cpuMs(child.pid) - beforeMs < WATCHED_MS / 10;
      });
      expect((await ask()).status).toBe(204);
    } finally {
      child.kill('SIGKILL');
      await exited;
    }
  },
);

function cpuMs(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}
