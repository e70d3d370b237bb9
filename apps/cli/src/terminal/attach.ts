import type { ApiClient } from '../api/client.ts';
import { endProcess } from '../api/end-process.ts';
import { openPty } from '../api/pty.ts';
import { type Cli, note } from '../cli.ts';
import { CliError } from '../cli-error.ts';
import { watchEscape } from './escape.ts';

export interface TerminalProgram {
  readonly cmd: string;
  readonly args: readonly string[];
  readonly envs: Readonly<Record<string, string>>;
  readonly cwd: string | undefined;
  readonly user: string | undefined;
}

/** What the guest needs to know of our terminal to draw on it. */
const PASSED_ON = ['TERM', 'COLORTERM'] as const;

/** Leaves what a program that was cut off may have turned on: other screen, mouse, paste marks, hidden cursor, colours. */
const RESET_SCREEN =
  '\u001b[?1049l\u001b[?1000l\u001b[?1002l\u001b[?1003l\u001b[?1006l\u001b[?2004l\u001b[?1l\u001b>\u001b[?25h\u001b[0m\r\n';

/** @throws CliError where there is no terminal to attach. */
export function requireTerminal(): void {
  if (process.stdin.isTTY && process.stdout.isTTY) return;
  throw new CliError(
    'A terminal is needed, and the input or output of this command is not one.',
    'Use `wrenn exec` or `wrenn run` without --tty in scripts and pipes.',
  );
}

/**
 * Connects this terminal to a program in the capsule, a new one or that of a terminal that is there: every key goes
 * there, Ctrl-C too, and the size follows. Answers the program's exit code. The terminal is as before when this returns,
 * however it ends. A program that was started here ends when the person leaves; one that was there goes on.
 */
export async function attachTerminal(
  cli: Cli,
  api: ApiClient,
  capsuleId: string,
  program: TerminalProgram | { readonly tag: string },
): Promise<number> {
  requireTerminal();
  const { stdin, stdout } = process;
  const envs = Object.fromEntries(PASSED_ON.flatMap((name) => (process.env[name] ? [[name, process.env[name]]] : [])));
  using pty = await openPty(
    api,
    capsuleId,
    {
      program: 'tag' in program ? program : { ...program, envs: { ...envs, ...program.envs } },
      cols: stdout.columns,
      rows: stdout.rows,
      onOutput: (data) => stdout.write(data),
      onNotice: (message) => note(`wrenn: ${message}`),
    },
    cli.signal,
  );
  const left = Promise.withResolvers<never>();
  const readKeys = watchEscape();
  const onKeys = (keys: Buffer) => {
    const { pass, leave } = readKeys(keys);
    if (pass.length > 0) pty.write(pass);
    if (leave) left.reject(new CliError('You left the terminal; the program in the capsule may still run.'));
  };
  const onResize = () => pty.resize(stdout.columns, stdout.rows);
  const onDrain = () => pty.resumeOutput();

  stdin.setRawMode(true);
  stdin.on('data', onKeys);
  stdout.on('resize', onResize);
  stdout.on('drain', onDrain);
  // The terminal may have changed its size while the program was started.
  onResize();
  try {
    return await Promise.race([pty.exited, left.promise]);
  } catch (error) {
    stdout.write(RESET_SCREEN);
    if (!('tag' in program) && !(await pty.kill())) {
      await endProcess(api, capsuleId, pty.tag, (message) => note(`wrenn: ${message}`));
    }
    throw error;
  } finally {
    stdin.off('data', onKeys);
    stdout.off('resize', onResize);
    stdout.off('drain', onDrain);
    stdin.setRawMode(false);
    stdin.pause();
  }
}
