import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { WrennError } from '@wrenn/protocol/errors';

/** The Debian package that brings each program which a bare Debian may lack. */
const TOOL_PACKAGES: Readonly<Record<string, string>> = {
  'apt-cache': 'apt',
  'apt-config': 'apt',
  'apt-get': 'apt',
  busybox: 'busybox-static',
  debugfs: 'e2fsprogs',
  docker: 'docker.io',
  'dpkg-deb': 'dpkg',
  e2fsck: 'e2fsprogs',
  fallocate: 'util-linux',
  flock: 'util-linux',
  lz4: 'lz4',
  mke2fs: 'e2fsprogs',
  mmdebstrap: 'mmdebstrap',
  'qemu-img': 'qemu-utils',
  setpriv: 'util-linux',
  xz: 'xz-utils',
  zstd: 'zstd',
};

/** Debian keeps some tools where the PATH of an ordinary shell does not look. */
const SYSTEM_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/bin', '/bin'];

export interface CommandOptions {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly cwd?: string;
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Bytes or text for standard input, which is empty otherwise. */
  readonly input?: string | Uint8Array | undefined;
  /** Called for each line of standard error while the command runs. */
  readonly onLine?: ((line: string) => void) | undefined;
}

/** A program ended with another status than 0. */
export class CommandFailedError extends Error {
  override readonly name = 'CommandFailedError';
  /** The last lines that it wrote to standard error. */
  readonly lastLines: readonly string[];

  constructor(command: string, outcome: string, lastLines: readonly string[]) {
    super(`${command} ${outcome}${lastLines.length > 0 ? `: ${lastLines.join(' | ')}` : ''}`);
    this.lastLines = lastLines;
  }
}

/** The full path of a program; a path is taken as it is. @throws WrennError host_tool_missing, which names the package to install. */
export async function findTool(tool: string): Promise<string> {
  if (tool.includes('/')) return tool;
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), ...SYSTEM_FOLDERS]) {
    if (folder === '') continue;
    const path = join(folder, tool);
    const executable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (executable) return path;
  }
  throw new WrennError('host_tool_missing', { tool, package: TOOL_PACKAGES[tool] ?? tool });
}

/**
 * Runs a program to its end and returns its standard output.
 *
 * The program gets SIGTERM with its whole group when the signal aborts or the time is over, SIGKILL 5 s later, and
 * SIGTERM when this process dies, whatever kills it.
 *
 * @throws CommandFailedError, or the signal's reason.
 */
export async function runCommand(tool: string, args: readonly string[], options: CommandOptions): Promise<Buffer> {
  options.signal.throwIfAborted();
  const [guard, path] = await Promise.all([findTool('setpriv'), findTool(tool)]);
  const child = spawn(guard, ['--pdeathsig', 'TERM', '--', path, ...args], {
    cwd: options.cwd,
    env: { ...process.env, LC_ALL: 'C.UTF-8', ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  });
  const ended = new Promise<string>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, killedBy) => resolve(killedBy ? `was killed by ${killedBy}` : `ended with ${code}`));
  });
  const stop = AbortSignal.any([options.signal, AbortSignal.timeout(options.timeoutMs)]);
  let killTimer: NodeJS.Timeout | undefined;
  const onStop = () => {
    signalGroup(child.pid, 'SIGTERM');
    killTimer = setTimeout(() => signalGroup(child.pid, 'SIGKILL'), 5_000);
  };
  stop.addEventListener('abort', onStop, { once: true });
  if (stop.aborted) onStop();
  const output: Buffer[] = [];
  const lastLines: string[] = [];
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  createInterface({ input: child.stderr }).on('line', (line) => {
    if (line.trim() === '') return;
    lastLines.push(line);
    if (lastLines.length > 5) lastLines.shift();
    options.onLine?.(line);
  });
  // A program that ends before it has read all of its input is judged by its status, not by the broken pipe.
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input);
  try {
    const outcome = await ended;
    options.signal.throwIfAborted();
    if (stop.aborted) throw new CommandFailedError(tool, `took longer than ${options.timeoutMs} ms`, lastLines);
    if (outcome !== 'ended with 0') throw new CommandFailedError(tool, outcome, lastLines);
    return Buffer.concat(output);
  } finally {
    stop.removeEventListener('abort', onStop);
    clearTimeout(killTimer);
  }
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
