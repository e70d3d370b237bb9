import { spawn } from 'node:child_process';

/** A host program failed; the message holds what it wrote to its standard error. For the log, not for users. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
}

export interface CommandOptions {
  /** Written to the program's standard input. */
  readonly input?: string;
  readonly signal?: AbortSignal;
  /** The program is killed after this time; 30 s unless told. */
  readonly timeoutMs?: number;
}

/** More than this of a program's output is not kept. */
const OUTPUT_LIMIT = 1_000_000;

/**
 * Runs a host program to its end and returns its standard output.
 *
 * @throws CommandError when it cannot be started, ends with another code than 0, or is killed by deadline or signal.
 */
export function runCommand(program: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const timeout = AbortSignal.timeout(options.timeoutMs ?? 30_000);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { signal, killSignal: 'SIGKILL', stdio: ['pipe', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    let size = 0;
    const keep = (list: Buffer[]) => (chunk: Buffer) => {
      size += chunk.length;
      if (size <= OUTPUT_LIMIT) list.push(chunk);
    };
    child.stdout.on('data', keep(out));
    child.stderr.on('data', keep(err));
    child.stdin.on('error', () => {
      // The program ended without reading its input; its exit code tells the rest.
    });
    let failure: Error | undefined;
    child.on('error', (error) => {
      failure = error;
      // Without a process there is no close event.
      if (child.pid === undefined) reject(new CommandError(`${program} cannot be started: ${error.message}`));
    });
    child.on('close', (code, killedBy) => {
      if (code === 0 && !failure) return resolve(Buffer.concat(out).toString());
      const how = failure ? failure.message : code === null ? `killed by ${killedBy}` : `code ${code}`;
      const text = Buffer.concat(err).toString().trim();
      reject(new CommandError(`${program} ${args.join(' ')}: ${how}: ${text}`, { cause: failure }));
    });
    child.stdin.end(options.input ?? '');
  });
}
