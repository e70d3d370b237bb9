import { ReadStream } from 'node:tty';
import { asFileUser, setCloseOnExec } from '../native/libc.ts';
import { loadNative } from '../native/load-native.ts';
import type { Account } from '../users/accounts.ts';
import {
  type LaunchedProcess,
  type LaunchOptions,
  type ProcessExit,
  resetNiceness,
  startError,
  type TerminalSize,
} from './launch.ts';
import { withChildScore } from './oom-score.ts';
import { ProcessInput } from './process-input.ts';

/** The native half of node-pty; its JavaScript half reads the terminal without regard to who keeps up. */
interface PtyAddon {
  fork(
    file: string,
    args: readonly string[],
    environment: readonly string[],
    cwd: string,
    columns: number,
    rows: number,
    uid: number,
    gid: number,
    utf8: boolean,
    helperPath: string,
    onExit: (code: number, signal: number) => void,
  ): { fd: number; pid: number; pty: string };
  resize(fd: number, columns: number, rows: number): void;
}

let addon: PtyAddon | undefined;

/** Keeps the identity that envd has. */
const NO_SWITCH = -1;

/** Starts a process on a terminal of its own, which belongs to the account. Fails with `command_not_found`. */
export function launchOnTerminal(options: LaunchOptions, size: TerminalSize, account: Account): LaunchedProcess {
  addon ??= loadNative('pty') as PtyAddon;
  const pty = addon;
  let resolveExit: (exit: ProcessExit) => void = () => {};
  const exited = new Promise<ProcessExit>((resolve) => {
    resolveExit = resolve;
  });
  let terminal: { fd: number; pid: number; pty: string };
  try {
    const fork = () =>
      pty.fork(
        options.plan.file,
        options.plan.args,
        Object.entries(options.environment).map(([name, value]) => `${name}=${value}`),
        options.cwd,
        size.columns,
        size.rows,
        NO_SWITCH,
        NO_SWITCH,
        true,
        '',
        (code, signal) => resolveExit(signal === 0 ? { kind: 'exit', code } : { kind: 'signal', signal }),
      );
    // A terminal belongs to who opens it, and the program looks at it at once.
    const isSwitched = process.getuid?.() === 0 && account.uid !== 0;
    terminal = withChildScore(() => (isSwitched ? asFileUser(account.uid, fork) : fork()));
  } catch (error) {
    throw startError(options.command, error);
  }
  // Else the next process would inherit the master, and this terminal would never hang up.
  setCloseOnExec(terminal.fd);
  resetNiceness(terminal.pid);
  const socket = new ReadStream(terminal.fd);
  const input = new ProcessInput('pty', socket);
  input.setPid(terminal.pid);
  let open = true;
  socket.once('close', () => {
    open = false;
  });
  return {
    pid: terminal.pid,
    input,
    sources: [{ stream: 'pty', socket }],
    exited,
    resize: ({ columns, rows }) => {
      if (open) pty.resize(terminal.fd, columns, rows);
    },
  };
}
