import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Platform, startPlatform } from './support/platform.ts';
import { openTerminal, type Terminal } from './support/terminal.ts';
import { WRENN, wrenn } from './support/wrenn.ts';

let platform: Platform;
let env: Record<string, string>;
let id: string;

beforeAll(async () => {
  platform = await startPlatform();
  env = { WRENN_DIR: platform.dir, WRENN_BASE_URL: platform.baseUrl, WRENN_API_KEY: platform.apiKey };
  const { stdout, stderr } = await wrenn(['create'], env);
  id = stdout.trim();
  expect(id, stderr).toMatch(/^cl-/);
});

afterAll(async () => {
  await platform?.[Symbol.asyncDispose]();
});

/** Our shell's prompt once more, with what the last command answered. */
const ENDED = /^status (\d+)$/m;

async function runInTerminal(terminal: Terminal, command: string): Promise<void> {
  await terminal.type(`clear; ${command}; echo status $?`);
  await terminal.press('Enter');
}

async function openShell(size?: { cols: number; rows: number }, command = `${WRENN} shell ${id}`): Promise<Terminal> {
  const terminal = await openTerminal(env, size);
  try {
    await runInTerminal(terminal, command);
    await terminal.sees(/^user@.*\$/m);
  } catch (error) {
    await terminal[Symbol.asyncDispose]();
    throw error;
  }
  return terminal;
}

/** Echo and line mode are on, as before. */
async function expectRestored(terminal: Terminal): Promise<void> {
  await runInTerminal(terminal, `stty -a | tr ';' '\\n' | tr ' ' '\\n' | grep -xE -- '-?(icanon|echo|isig|opost)'`);
  await terminal.sees(/^status 0\nhost\$/m);
  const modes = (await terminal.screen()).match(/^-?(icanon|echo|isig|opost)$/gm);
  expect(modes?.sort()).toEqual(['echo', 'icanon', 'isig', 'opost']);
}

describe('wrenn shell', () => {
  it('is a terminal: size, type, colours, resize', async () => {
    await using terminal = await openShell({ cols: 91, rows: 27 });
    await terminal.type('clear; stty size; echo "type $TERM"; printf "\\033[31mred\\033[0m\\n"');
    await terminal.press('Enter');
    await terminal.sees(/^27 91$/m);
    // tmux tells the programs in it that they run in tmux or screen.
    await terminal.sees(/^type (tmux|screen)/m);
    await terminal.sees(/\[31mred/, { colours: true });
    await terminal.resize(70, 20);
    await until('the guest knows the new size', 30_000, async () => {
      await terminal.type('clear; stty size');
      await terminal.press('Enter');
      return /^20 70$/m.test(await terminal.screen());
    });
  });

  it('sends Ctrl-C to the guest, and gives the exit code of the shell', async () => {
    await using terminal = await openShell();
    await terminal.type('sleep 600; echo "sleep gave $?"');
    await terminal.press('Enter');
    await until(
      'the guest sleeps',
      30_000,
      async () => (await wrenn(['exec', id, 'pgrep', '-x', 'sleep'], env)).status === 0,
    );
    await terminal.press('C-c');
    await terminal.sees(/\^C\nuser@.*\$$/m);
    await terminal.type('echo "after $((6*7))"');
    await terminal.press('Enter');
    await terminal.sees(/^after 42$/m);
    await terminal.type('exit 7');
    await terminal.press('Enter');
    expect((await terminal.sees(ENDED))[1]).toBe('7');
    await expectRestored(terminal);
  });

  it('ends with Ctrl-D, and passes every key on before', async () => {
    await using terminal = await openShell();
    await terminal.type('cat -v');
    await terminal.press('Enter');
    await until('cat runs', 30_000, async () => (await wrenn(['exec', id, 'pgrep', '-x', 'cat'], env)).status === 0);
    await terminal.press('C-v');
    await terminal.press('Up');
    await terminal.type('grün');
    await terminal.press('Enter');
    // The terminal's echo, and what cat read: an arrow key, and the two bytes of ü.
    await terminal.sees(/^\^\[\[AgrM-CM-<n$/m);
    await terminal.press('C-d');
    // Until it prompts, the shell has not yet taken the terminal back from cat.
    await terminal.sees(/n\nuser@.*\$$/m);
    await terminal.press('C-d');
    expect((await terminal.sees(ENDED))[1]).toBe('0');
  });

  it('can be left with Enter ~ . when the guest hangs', async () => {
    await using terminal = await openShell();
    await terminal.type("trap '' INT TERM; stty raw -echo; cat >/dev/null");
    await terminal.press('Enter');
    await until('cat runs', 30_000, async () => (await wrenn(['exec', id, 'pgrep', '-x', 'cat'], env)).status === 0);
    await terminal.press('C-c');
    await terminal.press('Enter');
    await terminal.type('~.');
    await terminal.sees(/You left the terminal/);
    expect((await terminal.sees(ENDED))[1]).toBe('1');
    await expectRestored(terminal);
  });

  it('restores the terminal when its capsule is destroyed', async () => {
    const other = (await wrenn(['create'], env)).stdout.trim();
    await using terminal = await openShell(undefined, `${WRENN} shell ${other}`);
    await terminal.type('printf "\\033[?1049h\\033[?25lother screen"; sleep 600');
    await terminal.press('Enter');
    await terminal.sees(/other screen$/m);
    expect((await wrenn(['rm', other], env)).status).toBe(0);
    expect((await terminal.sees(ENDED))[1]).not.toBe('0');
    await expectRestored(terminal);
  });

  it('restores the terminal when it is told to end', async () => {
    await using terminal = await openShell(
      undefined,
      `sh -c 'echo $$ >${platform.dir}/shell.pid; exec ${WRENN} shell ${id}'`,
    );
    process.kill(Number(await readFile(join(platform.dir, 'shell.pid'), 'utf8')), 'SIGTERM');
    expect((await terminal.sees(ENDED))[1]).toBe('143');
    await expectRestored(terminal);
  });

  it('makes a capsule of its own without an id, and removes it after', async () => {
    const before = (await wrenn(['ls', '-q'], env)).stdout;
    await using terminal = await openShell(undefined, `${WRENN} shell`);
    expect((await wrenn(['ls', '-q'], env)).stdout).not.toBe(before);
    await terminal.type('exit');
    await terminal.press('Enter');
    expect((await terminal.sees(ENDED))[1]).toBe('0');
    expect((await wrenn(['ls', '-q'], env)).stdout).toBe(before);
  });
});

describe('wrenn run --tty', () => {
  it('gives the command a terminal', async () => {
    await using terminal = await openTerminal(env, { cols: 77, rows: 22 });
    await runInTerminal(terminal, `${WRENN} run --tty -- sh -c 'tty && stty size; exit 4'`);
    await terminal.sees(/^\/dev\/pts\/\d+\n22 77$/m);
    expect((await terminal.sees(ENDED))[1]).toBe('4');
  });

  it('shows progress on one line that goes', async () => {
    await using terminal = await openTerminal(env);
    const record = join(platform.dir, 'terminal.out');
    await terminal.record(record);
    await runInTerminal(terminal, `${WRENN} run --memory 300M -- echo done`);
    await terminal.sees(ENDED);
    // On a line that was cleared for it.
    const isDrawn = async () => (await readFile(record, 'utf8')).includes('\r\u001b[Kcreating a capsule … ');
    await until('the progress was shown', isDrawn);
    expect((await terminal.screen()).trimEnd().split('\n').slice(0, 2)).toEqual(['done', 'status 0']);
  });
});
