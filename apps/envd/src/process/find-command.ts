import { closeSync, openSync, readSync, type Stats, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf } from '../errors.ts';
import type { Account } from '../users/accounts.ts';

type Finding = { found: true; path: string } | { found: false; problem: string };

/**
 * Where a command lies, searched as execvp does, in the child's own PATH and working directory. Fails with
 * `command_not_found` for what exec would refuse, so that nobody has to tell a missing program from one that ended
 * with 127.
 */
export function findCommand(command: string, cwd: string, path: string | undefined, account: Account): string {
  const fail = (problem: string) => new WrennError('command_not_found', { command, problem });
  if (command === '') throw fail('it is empty');
  if (command.includes('/')) {
    const finding = examine(resolve(cwd, command), account);
    if (finding.found) return finding.path;
    throw fail(finding.problem);
  }
  let problem = 'it is not in PATH';
  for (const directory of (path ?? '').split(':')) {
    const finding = examine(join(resolve(cwd, directory), command), account);
    if (finding.found) return finding.path;
    // As the shell does, the first file that cannot be run explains more than that there is none further on.
    if (finding.problem !== MISSING && problem === 'it is not in PATH') problem = finding.problem;
  }
  throw fail(problem);
}

const MISSING = 'there is no such file';

function examine(path: string, account: Account): Finding {
  let stat: Stats;
  try {
    stat = statSync(path);
  } catch (error) {
    const missing = errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR';
    return { found: false, problem: missing ? MISSING : `${path} cannot be read (${errnoOf(error)})` };
  }
  if (stat.isDirectory()) return { found: false, problem: `${path} is a directory` };
  if (!mayExecute(stat, account)) return { found: false, problem: `${account.name} may not execute ${path}` };
  const interpreter = scriptInterpreter(path);
  if (interpreter !== undefined && statSync(interpreter, { throwIfNoEntry: false }) === undefined) {
    return { found: false, problem: `its interpreter ${interpreter} does not exist` };
  }
  return { found: true, path };
}

function mayExecute(stat: Stats, account: Account): boolean {
  if (account.uid === 0) return (stat.mode & 0o111) !== 0;
  if (stat.uid === account.uid) return (stat.mode & 0o100) !== 0;
  if (stat.gid === account.gid || account.supplementaryGids.includes(stat.gid)) return (stat.mode & 0o010) !== 0;
  return (stat.mode & 0o001) !== 0;
}

/** The absolute path after `#!`, where the file is a script. */
function scriptInterpreter(path: string): string | undefined {
  const head = Buffer.alloc(256);
  let length: number;
  try {
    const fd = openSync(path, 'r');
    try {
      length = readSync(fd, head, 0, head.length, 0);
    } finally {
      closeSync(fd);
    }
  } catch {
    // Executable but not readable: exec needs no reading of it.
    return undefined;
  }
  return /^#![ \t]*(\/[^\s]+)/.exec(head.toString('latin1', 0, length))?.[1];
}
