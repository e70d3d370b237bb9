import { randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import { lstat, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { CliError, systemCodeOf } from '../cli-error.ts';

/** What a local path leads to, links followed; undefined when there is nothing. */
export async function statLocal(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    throwUnless(error, 'ENOENT', path);
    return undefined;
  }
}

/** Where a copy named `name` goes for the target `to`: into it where that is a folder or ends with a slash. */
export async function localTarget(to: string, name: string): Promise<string> {
  const there = await statLocal(to);
  if (there?.isDirectory() || to.endsWith('/')) return resolve(to, name);
  return resolve(to);
}

/**
 * Lets `fill` write a new file or folder beside the target and puts it in place when it is complete. An interrupted
 * copy leaves nothing; what was a file is replaced, a link at the target too, so that nothing is written through it.
 *
 * @throws CliError when the target is a folder and `replaceFolder` is not given.
 */
export async function putInPlace(
  target: string,
  replaceFolder: boolean,
  fill: (temporary: string) => Promise<void>,
): Promise<void> {
  const there = await lstat(target).catch((error: unknown) => throwUnless(error, 'ENOENT', target));
  if (there?.isDirectory() && !replaceFolder) {
    throw new CliError(`${target} exists already.`, 'Name another folder, or give --force to replace it.');
  }
  await mkdir(dirname(target), { recursive: true });
  const temporary = join(dirname(target), `.${basename(target)}.${randomBytes(4).toString('hex')}.partial`);
  try {
    await fill(temporary);
    if (there?.isDirectory()) await rm(target, { recursive: true });
    await rename(temporary, target);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Opens a local file to read. @throws CliError that says what is wrong with it. */
export async function openLocal(path: string) {
  try {
    return await open(path, 'r');
  } catch (error) {
    throwUnless(error, undefined, path);
    throw error;
  }
}

const PROBLEMS: Readonly<Record<string, string>> = {
  ENOENT: 'does not exist',
  EACCES: 'may not be read by you',
  ENOTDIR: 'leads through something that is not a folder',
  ELOOP: 'is a link that leads nowhere',
};

function throwUnless(error: unknown, expected: string | undefined, path: string): void {
  const code = systemCodeOf(error);
  if (code !== undefined && code === expected) return;
  const problem = code === undefined ? undefined : PROBLEMS[code];
  throw problem === undefined ? error : new CliError(`${path} ${problem}.`);
}
