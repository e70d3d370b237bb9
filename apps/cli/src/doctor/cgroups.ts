import { readFile } from 'node:fs/promises';
import { systemCodeOf } from '../cli-error.ts';
import { type Finding, ok, warn } from './finding.ts';

export interface Cgroups {
  readonly version: 1 | 2;
  readonly controllers: readonly string[];
}

/** Controllers that bound a VM on its host. */
const WANTED = ['cpu', 'memory', 'pids'];

export async function checkCgroups(): Promise<Finding[]> {
  return [describeCgroups(await findCgroups())];
}

export function describeCgroups(found: Cgroups | undefined): Finding {
  const remedy =
    'Start the kernel with cgroups (systemd does), and allow them where this machine is a container itself.';
  if (found === undefined) return warn('cgroups', 'there are none: a capsule can take all of the host', remedy);
  const missing = WANTED.filter((name) => !found.controllers.includes(name));
  const detail = `version ${found.version}: ${found.controllers.join(', ')}`;
  if (missing.length === 0) return ok('cgroups', detail);
  return warn('cgroups', `${detail}; without ${missing.join(' and ')} a capsule is not bounded in it`, remedy);
}

async function findCgroups(): Promise<Cgroups | undefined> {
  const unified = await readIfThere('/sys/fs/cgroup/cgroup.controllers');
  if (unified !== undefined) return { version: 2, controllers: unified.trim().split(/\s+/).filter(Boolean) };
  const mounts = (await readFile('/proc/mounts', 'utf8')).split('\n').map((line) => line.split(' '));
  // `name=` mounts, such as systemd's, hold no controller.
  const controllers = mounts
    .filter(([, , type]) => type === 'cgroup')
    .flatMap(([, , , options = '']) => options.split(',').filter((option) => CONTROLLERS_V1.has(option)));
  return controllers.length === 0 ? undefined : { version: 1, controllers: [...new Set(controllers)] };
}

const CONTROLLERS_V1 = new Set(['cpu', 'memory', 'pids', 'blkio', 'cpuset', 'devices', 'freezer']);

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (systemCodeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
