import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { until } from '@wrenn/testing/until';

const run = promisify(execFile);
const TMUX_TIMEOUT_MS = 20_000;
const SCREEN_TIMEOUT_MS = 60_000;

/** A terminal as a person has it, with a shell of this machine in it. */
export interface Terminal extends AsyncDisposable {
  /** Types text, as it is. */
  type(text: string): Promise<void>;
  /** Presses a key by tmux's name of it: `Enter`, `C-c`. */
  press(key: string): Promise<void>;
  resize(cols: number, rows: number): Promise<void>;
  /** Keeps in a file all that is printed from now on, as it comes. */
  record(path: string): Promise<void>;
  /** What is on the screen; with `colours`, with its escape sequences. */
  screen(options?: { colours?: boolean }): Promise<string>;
  /** Waits until the screen matches, and answers the match. */
  sees(pattern: RegExp, options?: { colours?: boolean }): Promise<RegExpExecArray>;
}

/** Opens a terminal in a tmux server of its own. Its shell prompts with `host$ `. */
export async function openTerminal(
  env: Readonly<Record<string, string>>,
  { cols = 100, rows = 30 }: { cols?: number; rows?: number } = {},
): Promise<Terminal> {
  const server = `wrenn-test-${randomBytes(4).toString('hex')}`;
  const tmux = async (...args: string[]) => {
    const { stdout } = await run('tmux', ['-L', server, '-f', '/dev/null', ...args], { timeout: TMUX_TIMEOUT_MS });
    return stdout;
  };
  const size = ['-x', String(cols), '-y', String(rows)];
  const variables = Object.entries({ ...env, PS1: 'host$ ' }).map(([name, value]) => `${name}=${value}`);
  // Without a shell in between, which would take PS1 away.
  await tmux('new-session', '-d', ...size, 'env', ...variables, 'bash', '--norc', '--noprofile');
  const screen = ({ colours = false } = {}) => tmux('capture-pane', '-p', ...(colours ? ['-e'] : []));
  const terminal: Terminal = {
    type: async (text) => void (await tmux('send-keys', '-l', text)),
    press: async (key) => void (await tmux('send-keys', key)),
    resize: async (newCols, newRows) =>
      void (await tmux('resize-window', '-x', String(newCols), '-y', String(newRows))),
    record: async (path) => void (await tmux('pipe-pane', `cat >'${path}'`)),
    screen,
    async sees(pattern, options) {
      let text = '';
      try {
        await until(`the screen shows ${pattern}`, SCREEN_TIMEOUT_MS, async () => {
          text = await screen(options);
          return pattern.test(text);
        });
      } catch (error) {
        throw new Error(`the screen never showed ${pattern}; it shows:\n${text}`, { cause: error });
      }
      const match = pattern.exec(text);
      if (match === null) throw new Error(`${pattern} keeps state; give it without the flag g`);
      return match;
    },
    [Symbol.asyncDispose]: async () => void (await tmux('kill-server')),
  };
  try {
    await terminal.sees(/^host\$/m);
  } catch (error) {
    await terminal[Symbol.asyncDispose]();
    throw error;
  }
  return terminal;
}
