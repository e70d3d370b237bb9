import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, rmdir, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const MIB = 1024 * 1024;
const MOUNT_TIMEOUT_MS = 60_000;
const UNMOUNT_TRIES = 50;

/** A file system of its own and of limited size, below which a WRENN_DIR can be. Disposing it unmounts and removes it. */
export interface LimitedDisk extends AsyncDisposable {
  /** Where it is mounted. */
  readonly dir: string;
  /** Takes all the space that is left but `sparedMb`. */
  fill(sparedMb: number): Promise<void>;
  /** Gives back what `fill` took. */
  free(): Promise<void>;
  /** Space that is left, in MiB. */
  freeMb(): Promise<number>;
}

/** Makes an ext4 in a sparse file and mounts it. */
export async function limitedDisk(sizeMb: number): Promise<LimitedDisk> {
  // Short, because sockets of VMs are below it, and Linux keeps their paths in 108 bytes.
  const dir = await mkdtemp(join(tmpdir(), 'disk-'));
  const image = `${dir}.img`;
  const ballast = join(dir, 'ballast');
  await run('truncate', ['-s', `${sizeMb}M`, image]);
  await run('mkfs.ext4', ['-q', '-m0', '-E', 'lazy_itable_init=1,lazy_journal_init=1', image]);
  await run('mount', ['-o', 'loop', image, dir], { timeout: MOUNT_TIMEOUT_MS });
  const freeBytes = async () => {
    const { bavail, bsize } = await statfs(dir);
    return bavail * bsize;
  };
  const free = () => rm(ballast, { recursive: true, force: true });
  return {
    dir,
    free,
    freeMb: async () => Math.round((await freeBytes()) / MIB),
    fill: async (sparedMb) => {
      await mkdir(ballast, { recursive: true });
      // Others take and give back space meanwhile; what is taken in pieces gets the last of it.
      for (let piece = 0; piece < 10; piece++) {
        const bytes = (await freeBytes()) - sparedMb * MIB;
        if (bytes < 4096) return;
        const path = join(ballast, String(piece));
        await run('fallocate', ['-l', String(bytes), path]).catch(() => rm(path, { force: true }));
      }
    },
    [Symbol.asyncDispose]: async () => {
      await free();
      for (let tries = 1; ; tries++) {
        try {
          await run('umount', [dir], { timeout: MOUNT_TIMEOUT_MS });
          break;
        } catch (error) {
          if (tries === UNMOUNT_TRIES) throw error;
          await delay(200);
        }
      }
      await rmdir(dir);
      await rm(image);
    },
  };
}
