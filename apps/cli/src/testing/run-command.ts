import { vi } from 'vitest';
import { createApiClient } from '../api/client.ts';
import type { Cli } from '../cli.ts';
import { buildProgram } from '../program.ts';

/** An API, and whoever asks it. */
export interface Platform {
  readonly baseUrl: string;
  readonly apiKey: string;
  readonly loginToken: string;
}

/** What one run of a command gave. */
export interface CommandResult {
  readonly stdout: string;
  readonly exitCode: number;
}

/** Runs a command in this process. Its failure is thrown, as the program sees it. */
export async function runCommand(
  { baseUrl, apiKey, loginToken }: Platform,
  args: readonly string[],
): Promise<CommandResult> {
  const { signal } = new AbortController();
  const cli: Cli = {
    interrupts: { signal, handle: () => ({ [Symbol.dispose]: () => undefined }) },
    signal,
    api: () => createApiClient({ baseUrl, credential: apiKey }),
    loginApi: () => createApiClient({ baseUrl, credential: loginToken }),
    anonymousApi: () => createApiClient({ baseUrl, credential: undefined }),
    exitCode: 0,
  };
  let stdout = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    stdout += String(chunk);
    return true;
  });
  const writeError = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  try {
    await buildProgram(cli).parseAsync([...args], { from: 'user' });
  } finally {
    write.mockRestore();
    writeError.mockRestore();
  }
  return { stdout, exitCode: cli.exitCode };
}
