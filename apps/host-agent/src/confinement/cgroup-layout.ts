import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

export type CgroupController = 'memory' | 'cpu' | 'pids';

const CONTROLLERS: readonly CgroupController[] = ['memory', 'cpu', 'pids'];

/** Where a machine offers the controllers that confine a VM. */
export interface CgroupLayout {
  readonly version: 1 | 2;
  /** One tree with all controllers in version 2, one a controller or pair in version 1; none where nothing is offered. */
  readonly trees: readonly CgroupTree[];
}

export interface CgroupTree {
  readonly root: string;
  readonly controllers: readonly CgroupController[];
}

/** Reads the machine's layout from its mounts. A hybrid machine, whose v2 tree has no controllers, counts as v1. */
export async function findCgroups(mountinfoPath = '/proc/self/mountinfo'): Promise<CgroupLayout> {
  const mounts = parseMounts(await readFile(mountinfoPath, 'utf8'));
  const unified = mounts.find((mount) => mount.type === 'cgroup2');
  if (unified) {
    const offered = await readFile(join(unified.root, 'cgroup.controllers'), 'utf8').catch(() => '');
    const controllers = controllersIn(offered.split(/\s+/));
    if (controllers.length > 0) return { version: 2, trees: [{ root: unified.root, controllers }] };
  }
  const trees = mounts
    .filter((mount) => mount.type === 'cgroup')
    .map((mount) => ({ root: mount.root, controllers: controllersIn(mount.options) }))
    .filter((tree) => tree.controllers.length > 0);
  return { version: 1, trees };
}

function controllersIn(names: readonly string[]): CgroupController[] {
  return CONTROLLERS.filter((name) => names.includes(name));
}

function parseMounts(text: string): { root: string; type: string; options: string[] }[] {
  return text.split('\n').flatMap((line) => {
    // proc_pid_mountinfo(5): fixed fields, optional fields, a dash, then type, source and the superblock's options.
    const [before, after] = line.split(' - ');
    const root = before?.split(' ')[4];
    const [type, , options] = after?.split(' ') ?? [];
    return root && type && options ? [{ root, type, options: options.split(',') }] : [];
  });
}
