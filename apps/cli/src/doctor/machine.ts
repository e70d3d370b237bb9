import { readFile, statfs } from 'node:fs/promises';
import { availableParallelism, release, totalmem } from 'node:os';
import { dirname } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { systemCodeOf } from '../cli-error.ts';
import { formatBytes } from '../terminal/format.ts';
import { type Finding, fail, ok, warn } from './finding.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

export async function checkMachine(): Promise<Finding[]> {
  const meminfo = await readFile('/proc/meminfo', 'utf8');
  const available = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1] ?? 0) * 1024;
  return [
    process.platform === 'linux' && (process.arch === 'x64' || process.arch === 'arm64')
      ? ok(
          'system',
          `Linux ${release()} on ${process.arch}, ${availableParallelism()} CPUs, Node.js ${process.versions.node}`,
        )
      : fail('system', `${process.platform} on ${process.arch}`, 'Wrenn runs on Linux, on x86_64 and aarch64.'),
    describeMemory(available, totalmem()),
    process.getuid?.() === 0
      ? ok('user', 'root')
      : warn('user', 'not root: some of what follows cannot be looked at', 'Run `sudo npx wrenn doctor`.'),
  ];
}

export function describeMemory(availableBytes: number, totalBytes: number): Finding {
  const detail = `${formatBytes(availableBytes)} of ${formatBytes(totalBytes)} are free`;
  if (availableBytes >= GIB) return ok('memory', detail);
  const remedy = 'A capsule takes 512 MiB unless it is told otherwise; end other programs, or use smaller capsules.';
  return availableBytes >= 512 * MIB ? warn('memory', detail, remedy) : fail('memory', detail, remedy);
}

export async function checkDisk(dir: WrennDir): Promise<Finding[]> {
  const { path, bavail, bsize } = await statfsOfNearest(dir.root);
  return [describeDisk(path, bavail * bsize)];
}

export function describeDisk(path: string, freeBytes: number): Finding {
  const detail = `${formatBytes(freeBytes)} are free below ${path}`;
  const remedy =
    'Free some space there, or set WRENN_DIR to a folder on a larger disk. Images and a few capsules take 5 GiB.';
  if (freeBytes >= 5 * GIB) return ok('disk', detail);
  return freeBytes >= 2 * GIB ? warn('disk', detail, remedy) : fail('disk', detail, remedy);
}

/** The file system that a path is on, or will be on when it is made. */
async function statfsOfNearest(path: string): Promise<{ path: string; bavail: number; bsize: number }> {
  try {
    const { bavail, bsize } = await statfs(path);
    return { path, bavail, bsize };
  } catch (error) {
    if (systemCodeOf(error) !== 'ENOENT' || path === '/') throw error;
    return statfsOfNearest(dirname(path));
  }
}
