import { homedir } from 'node:os';
import { until } from '@wrenn/testing/until';
import { CommandExitError, NotFoundError, TimeoutError } from 'e2b';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type E2bSandbox, startE2bSandbox } from './e2b-sandbox.ts';

let e2b: E2bSandbox;

beforeAll(async () => {
  e2b = await startE2bSandbox();
});

afterAll(() => e2b[Symbol.asyncDispose]());

describe('commands in the foreground', () => {
  it('give output and exit code', async () => {
    const result = await e2b.sandbox.commands.run('echo "to stdout: $((6 * 7))"; echo to stderr >&2');
    expect(result).toMatchObject({ exitCode: 0, stdout: 'to stdout: 42\n', stderr: 'to stderr\n' });
  });

  it('throw what a failed command printed', async () => {
    const error = await e2b.sandbox.commands
      .run('echo before; echo why >&2; exit 12')
      .catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(CommandExitError);
    expect(error).toMatchObject({ exitCode: 12, stdout: 'before\n', stderr: 'why\n', error: 'exit status 12' });
  });

  it('stream output while it comes, whole characters only', async () => {
    const pieces: string[] = [];
    // The first ✓ comes in two halves.
    const script = String.raw`printf 'Zeile 1 \342\234'; read go; printf '\223\nZeile 2 ✓\n'`;
    const command = await e2b.sandbox.commands.run(script, {
      ...{ background: true, stdin: true },
      onStdout: (piece) => void pieces.push(piece),
    });
    await until('the first half has come', () => pieces.join('') === 'Zeile 1 ');
    await command.sendStdin('go\n');
    expect((await command.wait()).stdout).toBe('Zeile 1 ✓\nZeile 2 ✓\n');
    expect(pieces.join('')).toBe('Zeile 1 ✓\nZeile 2 ✓\n');
  });

  it('take environment, working directory and user', async () => {
    const { commands } = e2b.sandbox;
    expect((await commands.run('echo "$WHO in $PWD"', { envs: { WHO: 'me' }, cwd: '/usr' })).stdout).toBe(
      'me in /usr\n',
    );
    expect((await commands.run('pwd')).stdout.trim()).toBe(homedir());
    if (process.getuid?.() === 0) {
      expect((await commands.run('id -un', { user: 'root' })).stdout).toBe('root\n');
      expect((await commands.run('id -un; id -Gn', { user: 'nobody', cwd: '/' })).stdout).toBe('nobody\nnogroup\n');
    }
  });

  it('end at their time limit', async () => {
    await expect(e2b.sandbox.commands.run('sleep 60', { timeoutMs: 500 })).rejects.toBeInstanceOf(TimeoutError);
    await until('the command is no longer listed', async () => {
      const running = await e2b.sandbox.commands.list();
      return !running.some(({ args }) => args.includes('sleep 60'));
    });
  });

  it('carry 20 MB of output whole', async () => {
    const { stdout } = await e2b.sandbox.commands.run("head -c 20000000 /dev/zero | tr '\\0' y");
    expect(stdout.length).toBe(20_000_000);
    expect(/^y*$/.test(stdout)).toBe(true);
  });
});

describe('commands in the background', () => {
  it('are listed, connected to, and waited for', async () => {
    const { commands } = e2b.sandbox;
    const first = await commands.run('read line; echo "got $line"; exit 3', { background: true, stdin: true });
    const listed = (await commands.list()).find(({ pid }) => pid === first.pid);
    expect(listed).toMatchObject({ cmd: '/bin/bash', args: ['-l', '-c', expect.stringContaining('read line')] });
    const second = await commands.connect(first.pid);
    await commands.sendStdin(first.pid, 'a line\n');
    for (const handle of [first, second]) {
      await expect(handle.wait()).rejects.toMatchObject({ exitCode: 3, stdout: 'got a line\n' });
    }
  });

  it('read stdin until it is closed', async () => {
    const command = await e2b.sandbox.commands.run('wc -c', { background: true, stdin: true });
    await command.sendStdin('12345');
    await command.sendStdin('67890');
    await command.closeStdin();
    expect((await command.wait()).stdout.trim()).toBe('10');
  });

  it('outlive a client that disconnects, and are found again', async () => {
    const command = await e2b.sandbox.commands.run('read line; echo done', { background: true, stdin: true });
    await command.disconnect();
    const again = await e2b.sandbox.commands.connect(command.pid);
    await e2b.sandbox.commands.sendStdin(command.pid, 'go\n');
    expect((await again.wait()).stdout).toBe('done\n');
  });

  it('are killed, with what they started', async () => {
    const { commands } = e2b.sandbox;
    const command = await commands.run('sleep 300 & echo "child $!"; wait', { background: true });
    await until('the child is running', () => command.stdout.includes('child'));
    const child = Number(/child (\d+)/.exec(command.stdout)?.[1]);
    expect(await command.kill()).toBe(true);
    await expect(command.wait()).rejects.toBeInstanceOf(CommandExitError);
    expect(await commands.kill(command.pid)).toBe(false);
    await until('the child is gone too', async () => {
      const { stdout } = await commands.run(`grep ^State: /proc/${child}/status 2>&1 || true`);
      return stdout.includes('No such file') || stdout.includes('zombie');
    });
  });

  it('that are not there cannot be connected to or killed', async () => {
    await expect(e2b.sandbox.commands.connect(4_999_999)).rejects.toBeInstanceOf(NotFoundError);
    expect(await e2b.sandbox.commands.kill(4_999_999)).toBe(false);
  });
});
