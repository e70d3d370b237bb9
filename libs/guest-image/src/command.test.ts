import { readFile } from 'node:fs/promises';
import { until } from '@wrenn/testing/until';
import { describe, expect, it, vi } from 'vitest';
import { CommandFailedError, findTool, runCommand } from './command.ts';

const signal = new AbortController().signal;

/** A process that has ended may still be listed until its new parent asks for its status. */
async function isRunning(pid: string): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') Z');
  return !/\) [ZX]/.test(text);
}

describe('runCommand', () => {
  it('passes input and returns output', async () => {
    expect((await runCommand('cat', [], { signal, timeoutMs: 5_000, input: 'text' })).toString()).toBe('text');
  });

  it('tells the status and the last words of a program that fails', async () => {
    const run = runCommand('sh', ['-c', 'echo bad luck >&2; exit 7'], { signal, timeoutMs: 5_000 });
    await expect(run).rejects.toThrow('sh ended with 7: bad luck');
  });

  it('ends the whole group when the time is over', async () => {
    let pid = '';
    const onLine = (line: string) => {
      pid = line;
    };
    // A busy machine may need longer until the shell has said the pid.
    for (let timeoutMs = 500; pid === ''; timeoutMs *= 4) {
      const run = runCommand('sh', ['-c', 'sleep 60 & echo $! >&2; wait'], { signal, timeoutMs, onLine });
      await expect(run).rejects.toThrow(CommandFailedError);
    }
    await until('its child has ended', async () => !(await isRunning(pid)));
  });

  it('rejects with the reason of its signal', async () => {
    const controller = new AbortController();
    const run = runCommand('sleep', ['60'], { signal: controller.signal, timeoutMs: 60_000 });
    controller.abort(new Error('no longer wanted'));
    await expect(run).rejects.toThrow('no longer wanted');
  });
});

describe('findTool', () => {
  it('names the package of a program that is missing', async () => {
    const path = process.env.PATH;
    expect(await findTool('mke2fs')).toMatch(/\/mke2fs$/);
    await expect(findTool('docker-that-is-not-there')).rejects.toMatchObject({ code: 'host_tool_missing' });
    vi.stubEnv('PATH', '/nonexistent');
    // mke2fs lies in /sbin, which is searched whatever PATH says.
    expect(await findTool('mke2fs')).toMatch(/\/mke2fs$/);
    vi.unstubAllEnvs();
    expect(process.env.PATH).toBe(path);
  });
});
