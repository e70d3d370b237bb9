import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type E2bSandbox, startE2bSandbox } from './e2b-sandbox.ts';

let e2b: E2bSandbox;

beforeAll(async () => {
  e2b = await startE2bSandbox();
});

afterAll(() => e2b[Symbol.asyncDispose]());

/** A terminal, and what it has shown so far. */
async function openTerminal(envs: Record<string, string> = {}) {
  const { pty } = e2b.sandbox;
  const decoder = new TextDecoder();
  const screen = { text: '' };
  const show = (data: Uint8Array) => {
    screen.text += decoder.decode(data, { stream: true });
  };
  const handle = await pty.create({ cols: 90, rows: 20, envs, cwd: e2b.directory, onData: show });
  return {
    ...{ handle, screen, show },
    type: (text: string) => pty.sendInput(handle.pid, new TextEncoder().encode(text)),
    shows: (text: string) => until(`the terminal shows ${text}`, () => screen.text.includes(text)),
  };
}

describe('a terminal', () => {
  it('runs a shell with its environment and directory, and ends with its code', async () => {
    const { handle, type, shows } = await openTerminal({ GREETING: 'hello' });
    await type('echo "$GREETING from $PWD on $TERM"\n');
    await shows(`hello from ${e2b.directory} on xterm-256color`);
    await type('exit 5\n');
    await expect(handle.wait()).rejects.toMatchObject({ exitCode: 5 });
  });

  it('has the size that it is given', async () => {
    const { handle, type, shows } = await openTerminal();
    await type('stty size\n');
    await shows('20 90');
    await e2b.sandbox.pty.resize(handle.pid, { cols: 111, rows: 33 });
    await type('stty size\n');
    await shows('33 111');
    await handle.kill();
  });

  it('can be left and connected to again', async () => {
    const { handle, screen, show, type } = await openTerminal();
    await handle.disconnect();
    const again = await e2b.sandbox.pty.connect(handle.pid, { onData: show });
    screen.text = '';
    await type('echo "still $((20 + 3))"; exit 0\n');
    expect((await again.wait()).exitCode).toBe(0);
    expect(screen.text).toContain('still 23');
  });

  it('is killed', async () => {
    const { handle } = await openTerminal();
    expect(await e2b.sandbox.pty.kill(handle.pid)).toBe(true);
    await expect(handle.wait()).rejects.toMatchObject({ exitCode: -1 });
    expect(await e2b.sandbox.pty.kill(handle.pid)).toBe(false);
  });
});
