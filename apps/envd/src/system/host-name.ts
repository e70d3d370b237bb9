import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { errnoOf } from '../errors.ts';
import { setHostName } from '../native/libc.ts';
import { overwriteFile } from './overwrite-file.ts';

/** Sets the host name of this machine, now and for programs that read it from files. Needs root. */
export function changeHostName(name: string): void {
  // As after each sleep: what it wrote the first time is on the disk, and may have been changed by the guest's owner.
  if (hostname() === name) return;
  overwriteFile('/etc/hosts', hostsWithName(readIfThere('/etc/hosts'), name));
  overwriteFile('/etc/hostname', `${name}\n`);
  setHostName(name);
}

/** /etc/hosts with one line for the machine's own name: 127.0.1.1, as Debian does. */
export function hostsWithName(hosts: string, name: string): string {
  const kept = hosts.split('\n').filter((line) => !/^\s*127\.0\.1\.1\s/.test(line));
  while (kept.at(-1) === '') kept.pop();
  if (!kept.some((line) => /^\s*127\.0\.0\.1\s/.test(line))) kept.unshift('127.0.0.1 localhost', '::1 localhost');
  return `${[...kept, `127.0.1.1 ${name}`].join('\n')}\n`;
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return '';
    throw error;
  }
}
