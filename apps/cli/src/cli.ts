import { type ApiClient, createApiClient } from './api/client.ts';
import { readBaseUrl, readConnection, readLoginConnection } from './connection.ts';
import type { Interrupts } from './interrupts.ts';
import { clearProgress } from './terminal/progress.ts';

/** What every command gets. */
export interface Cli {
  readonly interrupts: Interrupts;
  /** Aborts when the person wants the command to end. */
  readonly signal: AbortSignal;
  /** The API that the environment names. @throws CliError when it names none. */
  readonly api: () => ApiClient;
  /** The same without a credential, for what everybody may ask. */
  readonly anonymousApi: () => ApiClient;
  /** The API as whoever is logged in. @throws CliError when nobody is */
  readonly loginApi: () => ApiClient;
  /** What the process exits with; 0 unless a command says otherwise. */
  exitCode: number;
}

export function createCli(interrupts: Interrupts): Cli {
  return {
    interrupts,
    signal: interrupts.signal,
    api: () => createApiClient(readConnection()),
    anonymousApi: () => createApiClient({ baseUrl: readBaseUrl(), credential: undefined }),
    loginApi: () => createApiClient(readLoginConnection()),
    exitCode: 0,
  };
}

/** Prints a line for the person or program that reads the result. */
export function print(line: string): void {
  clearProgress();
  process.stdout.write(`${line}\n`);
}

/** Prints a result for programs. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

/** Prints a remark for a person, beside the result. */
export function note(line: string): void {
  clearProgress();
  process.stderr.write(`${line}\n`);
}
