import { readFileSync } from 'node:fs';
import { absolutePath, readEnvironment } from '@wrenn/config/environment';
import { type WrennDir, wrennDir } from '@wrenn/config/wrenn-dir';
import { apiKeyBody } from '@wrenn/protocol/ids';
import { z } from 'zod';
import { CliError, systemCodeOf } from './cli-error.ts';
import { readPlatformState } from './up/platform-state.ts';

/** Where the API is and what opens it. */
export interface Connection {
  /** Without a slash at its end. */
  readonly baseUrl: string;
  readonly apiKey: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

export const DEFAULT_WRENN_DIR = '/var/lib/wrenn';
export const DEFAULT_BASE_URL = 'http://localhost:8000';

const httpUrl = z.url({ protocol: /^https?$/, message: 'must be an address such as http://localhost:8000' });

/** The folder of the platform on this machine. */
export function readWrennDir(env: Environment = process.env): WrennDir {
  return wrennDir(readEnvironment({ WRENN_DIR: absolutePath.default(DEFAULT_WRENN_DIR) }, env).WRENN_DIR);
}

/**
 * The connection that the environment asks for: `WRENN_BASE_URL` and `WRENN_API_KEY`; without them the platform that
 * `wrenn up` runs in WRENN_DIR, and the key that its first start wrote there.
 *
 * @throws CliError when there is no key, EnvironmentError when a variable is wrong.
 */
export function readConnection(env: Environment = process.env): Connection {
  const given = readEnvironment({ WRENN_BASE_URL: httpUrl.optional(), WRENN_API_KEY: z.string().optional() }, env);
  const dir = readWrennDir(env);
  const baseUrl = given.WRENN_BASE_URL ?? readPlatformState(dir)?.baseUrl ?? DEFAULT_BASE_URL;
  return { baseUrl: baseUrl.replace(/\/+$/, ''), apiKey: given.WRENN_API_KEY ?? readKeyFile(dir) };
}

/** The key that the first start of the platform wrote. @throws CliError when it is not there or not readable. */
export function readKeyFile(dir: WrennDir): string {
  let text: string;
  try {
    text = readFileSync(dir.apiKeyFile, 'utf8').trim();
  } catch (error) {
    if (systemCodeOf(error) === 'EACCES') {
      throw new CliError(
        `You may not read the API key in ${dir.apiKeyFile}.`,
        'Run this as root, or set WRENN_API_KEY.',
      );
    }
    throw new CliError(
      `There is no API key: WRENN_API_KEY is not set, and ${dir.apiKeyFile} does not exist.`,
      'Start the platform with `wrenn up`, or set WRENN_API_KEY (and WRENN_BASE_URL for another machine).',
    );
  }
  if (apiKeyBody(text) === undefined) {
    throw new CliError(`${dir.apiKeyFile} does not hold an API key.`, 'Set WRENN_API_KEY to a key of this platform.');
  }
  return text;
}
