import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findCgroups } from './cgroup-layout.ts';
import { VmCgroups } from './vm-cgroups.ts';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-cgroup-'));
});
afterEach(() => rm(dir, { recursive: true }));

async function layoutOf(mounts: string[]) {
  const path = join(dir, 'mountinfo');
  await writeFile(path, `${mounts.join('\n')}\n`);
  return findCgroups(path);
}

describe('findCgroups', () => {
  const v1 = (name: string, path: string) => `35 31 0:32 / ${path} rw,relatime shared:9 - cgroup cgroup rw,${name}`;

  it('takes version 2 where it has controllers', async () => {
    await mkdir(join(dir, 'unified'));
    await writeFile(join(dir, 'unified', 'cgroup.controllers'), 'cpuset cpu io memory pids\n');
    const layout = await layoutOf([`41 31 0:38 / ${join(dir, 'unified')} rw - cgroup2 cgroup2 rw`]);
    const tree = { root: join(dir, 'unified'), controllers: ['memory', 'cpu', 'pids'] };
    expect(layout).toEqual({ version: 2, trees: [tree] });
  });

  it('takes version 1 on a hybrid machine, with controllers that share a mount', async () => {
    await mkdir(join(dir, 'unified'));
    await writeFile(join(dir, 'unified', 'cgroup.controllers'), 'hugetlb\n');
    const layout = await layoutOf([
      v1('cpu,cpuacct', '/c/cpu'),
      v1('memory', '/c/memory'),
      v1('devices', '/c/devices'),
      `41 31 0:38 / ${join(dir, 'unified')} rw - cgroup2 cgroup2 rw`,
    ]);
    expect(layout).toEqual({
      version: 1,
      trees: [
        { root: '/c/cpu', controllers: ['cpu'] },
        { root: '/c/memory', controllers: ['memory'] },
      ],
    });
  });

  it('finds nothing where there is nothing', async () => {
    expect((await layoutOf(['22 1 0:20 / /proc rw - proc proc rw'])).trees).toEqual([]);
  });
});

describe('VmCgroups', () => {
  it('bounds what a process takes, and ends what is left when it is removed', async () => {
    const layout = await findCgroups();
    const log = pino({ level: 'silent' });
    await using cgroups = await VmCgroups.open({ wrennDir: dir, accelerator: 'kvm', log });
    const procs = await cgroups.create('cl-1', { vcpus: 2, memoryMb: 256 });
    expect(procs).toHaveLength(layout.trees.length);
    expect(await cgroups.list()).toEqual(layout.trees.length > 0 ? ['cl-1'] : []);
    for (const path of procs) {
      const group = path.replace('/cgroup.procs', '');
      const files = layout.version === 2 ? ['memory.max', 'pids.max'] : ['memory.limit_in_bytes', 'pids.max'];
      const limits = await Promise.all(files.map((name) => readFile(join(group, name), 'utf8').catch(() => undefined)));
      if (limits[0]) expect(Number(limits[0])).toBe((256 + 192) * 1024 * 1024);
      if (limits[1]) expect(Number(limits[1])).toBeGreaterThan(60);
    }
    const child: ChildProcess = spawn('sleep', ['600']);
    await once(child, 'spawn');
    for (const path of procs) await writeFile(path, String(child.pid));
    const ended = once(child, 'close');
    if (procs.length === 0) child.kill('SIGKILL');
    await cgroups.remove('cl-1');
    expect((await ended)[1]).toBe('SIGKILL');
    await cgroups.remove('cl-1');
    expect(await cgroups.list()).toEqual([]);
  });
});
