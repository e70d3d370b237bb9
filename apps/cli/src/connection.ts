import { readFileSync } from 'node:fs';
import { absolutePath, readEnvironment } from '@wrenn/config/environment';
import { type WrennDir, wrennDir } from '@wrenn/config/wrenn-dir';
import { apiKeyBody } from '@wrenn/protocol/ids';
import { z } from 'zod';
import { CliError, systemCodeOf } from './cli-error.ts';
import { readLogin } from './login/saved-logins.ts';
import { readPlatformState } from './up/platform-state.ts';

/** Where the API is and what opens it. */
export interface Connection {
  /** Without a slash at its end. */
  readonly baseUrl: string;
  /** An API key, or the token of a login. Undefined: none, for what everybody may ask. */
  readonly credential: string | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

export const DEFAULT_WRENN_DIR = '/var/lib/wrenn';
export const DEFAULT_BASE_URL = 'http://localhost:8000';

const httpUrl = z.url({ protocol: /^https?$/, message: 'must be an address such as http://localhost:8000' });

/** The folder of the platform on this machine. */
export function readWrennDir(env: Environment = process.env): WrennDir {
  return wrennDir(readEnvironment({ WRENN_DIR: absolutePath.default(DEFAULT_WRENN_DIR) }, env).WRENN_DIR);
}

/** Where the API is: `WRENN_BASE_URL`, else the platform that `wrenn up` runs in WRENN_DIR, else the usual address. */
export function readBaseUrl(env: Environment = process.env): string {
  const given = readEnvironment({ WRENN_BASE_URL: httpUrl.optional() }, env).WRENN_BASE_URL;
  return (given ?? readPlatformState(readWrennDir(env))?.baseUrl ?? DEFAULT_BASE_URL).replace(/\/+$/, '');
}

/**
 * The connection that the environment asks for. What opens it is, in this order: `WRENN_API_KEY`, the login that
 * `wrenn login` keeps for that address, the key that the first start of the platform wrote into WRENN_DIR.
 *
 * @throws CliError when there is none of these, EnvironmentError when a variable is wrong.
 */
export function readConnection(env: Environment = process.env): Connection {
  const baseUrl = readBaseUrl(env);
  const { WRENN_API_KEY: key } = readEnvironment({ WRENN_API_KEY: z.string().optional() }, env);
  const credential = key ?? readLogin(baseUrl, env)?.token;
  if (credential !== undefined) return { baseUrl, credential };
  // The key of this machine's platform is nobody else's business.
  if (!isThisMachine(baseUrl, env)) {
    throw new CliError(
      `You are not logged in at ${baseUrl}.`,
      'Use `wrenn login`, or set WRENN_API_KEY to a key of it.',
    );
  }
  return { baseUrl, credential: readKeyFile(readWrennDir(env)) };
}

function isThisMachine(baseUrl: string, env: Environment): boolean {
  const { hostname } = new URL(baseUrl);
  return (
    /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname) || baseUrl === readPlatformState(readWrennDir(env))?.baseUrl
  );
}

/** The connection of whoever is logged in: accounts, teams and keys are managed by people. @throws CliError */
export function readLoginConnection(env: Environment = process.env): Connection {
  const baseUrl = readBaseUrl(env);
  const login = readLogin(baseUrl, env);
  if (login) return { baseUrl, credential: login.token };
  throw new CliError(
    `You are not logged in at ${baseUrl}.`,
    'Use `wrenn login`; `wrenn signup` makes an account, `wrenn admin create` the first one of a new platform.',
  );
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
      `You are not logged in: WRENN_API_KEY is not set, and ${dir.apiKeyFile} does not exist.`,
      'Use `wrenn login`, or start the platform with `wrenn up`, or set WRENN_API_KEY (and WRENN_BASE_URL for another machine).',
    );
  }
  if (apiKeyBody(text) === undefined) {
    throw new CliError(`${dir.apiKeyFile} does not hold an API key.`, 'Set WRENN_API_KEY to a key of this platform.');
  }
  return text;
}
