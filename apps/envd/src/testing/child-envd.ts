import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export interface ChildEnvd extends AsyncDisposable {
  readonly url: string;
  readonly child: ChildProcess;
  /** Memory that is its own and in RAM, in bytes. */
  residentBytes(): number;
}

/** An envd in a process of its own, to measure it or to give it another machine's surroundings. */
export async function startChildEnvd(
  options: { program?: string; args?: readonly string[]; wrap?: readonly string[] } = {},
): Promise<ChildEnvd> {
  const program = options.program ?? join(import.meta.dirname, '../main.ts');
  const [file = process.execPath, ...args] = [
    ...(options.wrap ?? []),
    process.execPath,
    program,
    '--port',
    '0',
    ...(options.args ?? []),
  ];
  const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  // A test that runs out of time disposes of nothing.
  const end = () => child.kill('SIGKILL');
  process.once('exit', end);
  child.once('exit', () => process.off('exit', end));
  const port = await new Promise<number>((resolve, reject) => {
    const seen: string[] = [];
    createInterface(child.stderr).on('line', (line) => {
      seen.push(line);
      const match = /"message":"listening".*"port":(\d+)/.exec(line);
      if (match) resolve(Number(match[1]));
    });
    child.once('exit', (code) => reject(new Error(`envd ended with ${code} before it listened:\n${seen.join('\n')}`)));
  });
  return {
    url: `http://127.0.0.1:${port}`,
    child,
    residentBytes: () => {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
    },
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
    },
  };
}
