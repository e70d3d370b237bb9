import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type WrennDir, wrennDir } from '@wrenn/config/wrenn-dir';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { takePlatformLock } from './platform-lock.ts';
import { platformStateFile, readPlatformState, startTicksOf } from './platform-state.ts';

let dir: WrennDir;
beforeEach(() => {
  dir = wrennDir(mkdtempSync(join(tmpdir(), 'wrenn-lock-')));
});
afterEach(() => rmSync(dir.root, { recursive: true }));

describe('takePlatformLock', () => {
  it('lets one in, tells where it is, and the next one in after', () => {
    {
      using lock = takePlatformLock(dir);
      expect(() => takePlatformLock(dir)).toThrow('Another `wrenn up` is starting');
      lock.publish('http://localhost:8000');
      expect(readPlatformState(dir)).toMatchObject({ pid: process.pid, baseUrl: 'http://localhost:8000' });
      expect(() => takePlatformLock(dir)).toThrow(`\`wrenn up\` (process ${process.pid}) runs on ${dir.root} already`);
    }
    expect(readPlatformState(dir)).toBeUndefined();
    using again = takePlatformLock(dir);
    again.publish('http://localhost:9000');
  });

  it('is free again when its holder was killed, whatever that left behind', async () => {
    const script = `
      import { wrennDir } from '@wrenn/config/wrenn-dir';
      import { takePlatformLock } from ${JSON.stringify(join(import.meta.dirname, 'platform-lock.ts'))};
      takePlatformLock(wrennDir(${JSON.stringify(dir.root)})).publish('http://localhost:1');
      console.log('locked');
      setInterval(() => {}, 1000);
    `;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
      cwd: import.meta.dirname,
    });
    await once(child.stdout, 'data');
    expect(readPlatformState(dir)?.pid).toBe(child.pid);
    expect(() => takePlatformLock(dir)).toThrow('already');
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(readFileSync(platformStateFile(dir), 'utf8')).toContain('localhost:1');
    expect(readPlatformState(dir)).toBeUndefined();
    takePlatformLock(dir)[Symbol.dispose]();
  });
});

describe('readPlatformState', () => {
  it.each(['', 'not json', '{"pid":"1"}'])('takes a file with %j for none', (text) => {
    writeFileSync(platformStateFile(dir), text);
    expect(readPlatformState(dir)).toBeUndefined();
  });

  it('does not take a later process with the same pid for it', () => {
    const state = { pid: process.pid, startTicks: '1', baseUrl: 'http://localhost:8000' };
    writeFileSync(platformStateFile(dir), JSON.stringify(state));
    expect(readPlatformState(dir)).toBeUndefined();
    expect(startTicksOf(process.pid)).toMatch(/^\d+$/);
  });
});
