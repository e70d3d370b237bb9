import { EnvironmentError } from '@wrenn/config/environment';
import { WrennError } from '@wrenn/protocol/errors';

/** Something that a person can mend: what happened, and what to do next. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly remedy: string | undefined;
  readonly exitCode: number;

  constructor(message: string, remedy?: string, options?: ErrorOptions & { exitCode?: number }) {
    super(message, options);
    this.remedy = remedy;
    this.exitCode = options?.exitCode ?? EXIT.error;
  }
}

/** Exit codes of the command itself. `run`, `exec` and `shell` give the guest's code instead. */
export const EXIT = { ok: 0, error: 1, usage: 2, interrupted: 130, terminated: 143 } as const;

/** What a failed command prints on stderr, and its exit code. */
export function describeFailure(error: unknown, debug: boolean): { text: string; exitCode: number } {
  const known = describeKnown(error);
  const lines = [`wrenn: ${known?.message ?? `unexpected error: ${messageOf(error)}`}`];
  const remedy = known ? known.remedy : 'Run it again with WRENN_DEBUG=1 for the details, and report it if it stays.';
  if (remedy) lines.push(`  → ${remedy}`);
  if (debug && error instanceof Error) lines.push(stackWithCauses(error));
  return { text: lines.join('\n'), exitCode: known?.exitCode ?? EXIT.error };
}

function describeKnown(error: unknown): { message: string; remedy?: string | undefined; exitCode: number } | undefined {
  if (error instanceof CliError) return error;
  if (error instanceof WrennError) return { message: error.message, remedy: error.remedy, exitCode: EXIT.error };
  if (error instanceof EnvironmentError) return { message: error.message, exitCode: EXIT.usage };
  return undefined;
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The system's code of an error, e.g. "ENOENT", from the error or what caused it. */
export function systemCodeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ('code' in error && typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code)) return error.code;
  if (error instanceof AggregateError) return error.errors.map(systemCodeOf).find((code) => code !== undefined);
  return systemCodeOf(error.cause);
}

function stackWithCauses(error: Error): string {
  const stack = error.stack ?? error.message;
  return error.cause instanceof Error ? `${stack}\ncaused by: ${stackWithCauses(error.cause)}` : stack;
}
