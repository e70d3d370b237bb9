import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { withBuildLock } from './build-lock.ts';
import { scratchFolder } from './testing/scratch.ts';

const signal = new AbortController().signal;

describe('withBuildLock', () => {
  it('lets one build run at a time and tells the other that it waits', async () => {
    await using scratch = await scratchFolder();
    const path = join(scratch.path, 'kernels', 'lock');
    const events: string[] = [];
    const waiting = Promise.withResolvers<void>();
    const entered = Promise.withResolvers<void>();
    const first = withBuildLock(path, { signal }, async () => {
      events.push('first begins');
      entered.resolve();
      await waiting.promise;
      events.push('first ends');
    });
    await entered.promise;
    const onWait = () => {
      events.push('second waits');
      waiting.resolve();
    };
    await Promise.all([first, withBuildLock(path, { signal, onWait }, async () => events.push('second begins'))]);
    expect(events).toEqual(['first begins', 'second waits', 'first ends', 'second begins']);
  });

  it('is free again after the work failed', async () => {
    await using scratch = await scratchFolder();
    const path = join(scratch.path, 'lock');
    const failing = withBuildLock(path, { signal }, () => Promise.reject(new Error('no luck')));
    await expect(failing).rejects.toThrow('no luck');
    expect(await withBuildLock(path, { signal }, async () => 'free')).toBe('free');
  });

  it('is free again after its holder was killed', async () => {
    await using scratch = await scratchFolder();
    const path = join(scratch.path, 'lock');
    const source = `import { withBuildLock } from ${JSON.stringify(join(import.meta.dirname, 'build-lock.ts'))};
      await withBuildLock(${JSON.stringify(path)}, { signal: new AbortController().signal }, () => {
        console.log('held');
        return new Promise(() => setInterval(() => {}, 1000));
      });`;
    const holder = spawn(process.execPath, ['--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(holder.stdout, 'data');
    const waiter = withBuildLock(path, { signal, onWait: () => holder.kill('SIGKILL') }, async () => 'free');
    expect(await waiter).toBe('free');
  });

  it('stops waiting when the signal aborts', async () => {
    await using scratch = await scratchFolder();
    const path = join(scratch.path, 'lock');
    const controller = new AbortController();
    await withBuildLock(path, { signal }, async () => {
      const onWait = () => controller.abort(new Error('enough'));
      await expect(withBuildLock(path, { signal: controller.signal, onWait }, async () => 'never')).rejects.toThrow(
        'enough',
      );
    });
  });
});
