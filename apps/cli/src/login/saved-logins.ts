import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { CliError, systemCodeOf } from '../cli-error.ts';

const loginSchema = z.object({
  token: z.string(),
  email: z.string(),
  name: z.string(),
  team_id: z.string().nullable(),
  expires_at: z.string(),
});

/** A login that the next commands use. */
export type SavedLogin = z.output<typeof loginSchema>;

/** By the address of the API. */
const fileSchema = z.record(z.string(), loginSchema);

type Environment = Readonly<Record<string, string | undefined>>;

function fileOf(env: Environment): string {
  return join(env.XDG_CONFIG_HOME || join(env.HOME || homedir(), '.config'), 'wrenn', 'logins.json');
}

/** The login for an API; undefined when there is none that still holds. */
export function readLogin(baseUrl: string, env: Environment = process.env): SavedLogin | undefined {
  const login = readAll(env)[baseUrl];
  return login && Date.parse(login.expires_at) > Date.now() ? login : undefined;
}

/** Keeps a login, readable by this user alone. */
export function saveLogin(baseUrl: string, login: SavedLogin, env: Environment = process.env): void {
  writeAll({ ...readAll(env), [baseUrl]: loginSchema.parse(login) }, env);
}

/** @returns whether there was one */
export function forgetLogin(baseUrl: string, env: Environment = process.env): boolean {
  const { [baseUrl]: login, ...others } = readAll(env);
  if (login) writeAll(others, env);
  return login !== undefined;
}

function readAll(env: Environment): Record<string, SavedLogin> {
  const file = fileOf(env);
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT' || systemCodeOf(error) === 'ENOTDIR') return {};
    throw new CliError(`${file} cannot be read (${systemCodeOf(error)}).`, 'Make it readable for you, or remove it.');
  }
  try {
    return fileSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new CliError(`${file} is damaged.`, 'Remove it and log in again with `wrenn login`.', { cause });
  }
}

function writeAll(logins: Record<string, SavedLogin>, env: Environment): void {
  const file = fileOf(env);
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  // Two commands at once each write a whole file.
  const temporary = `${file}.${process.pid}`;
  writeFileSync(temporary, `${JSON.stringify(logins, null, 2)}\n`, { mode: 0o600 });
  chmodSync(temporary, 0o600);
  renameSync(temporary, file);
}
