import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { systemCodeOf } from '../cli-error.ts';
import { type Finding, fail, ok, warn } from './finding.ts';

export async function checkWrennDir(dir: WrennDir): Promise<Finding[]> {
  const root = await statIfThere(dir.root);
  if (root === undefined) {
    return [warn('folder', `${dir.root} does not exist yet`, '`wrenn up` makes it.')];
  }
  const key = await statIfThere(dir.apiKeyFile);
  return [describeRoot(dir.root, root), ...(key === undefined ? [] : [describeKeyFile(dir.apiKeyFile, key)])];
}

type Permissions = Pick<Stats, 'mode' | 'uid'>;

/** VMs run under users of their own: they pass through the folder, and nobody but root writes in it. */
export function describeRoot(path: string, { mode, uid }: Permissions): Finding {
  const detail = `${path} belongs to user ${uid}, mode ${octal(mode)}`;
  if (uid !== 0) return fail('folder', `${detail}: root must own it`, `chown root ${path}`);
  if ((mode & 0o022) !== 0) return fail('folder', `${detail}: others may write there`, `chmod go-w ${path}`);
  if ((mode & 0o001) === 0)
    return fail('folder', `${detail}: the microVMs' users cannot pass through`, `chmod o+x ${path}`);
  return ok('folder', detail);
}

export function describeKeyFile(path: string, { mode }: Permissions): Finding {
  if ((mode & 0o077) === 0) return ok('API key', `${path}, mode ${octal(mode)}`);
  return fail('API key', `${path} has mode ${octal(mode)}: others may read it`, `chmod 600 ${path}`);
}

function octal(mode: number): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}

async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
