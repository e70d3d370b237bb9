import { existsSync } from 'node:fs';
import { chmod, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { checkImageName } from './catalog.ts';
import { flush, flushTree, place, removePartials, swapLink } from './durable-files.ts';
import type { ImageManifest } from './manifest.ts';
import { hashSparseFile } from './sparse-hash.ts';

/** What an image says of itself, apart from what the file itself tells. */
export type ImageDescription = Omit<ImageManifest, 'sha256' | 'sizeBytes' | 'format' | 'createdAt'>;

interface PublishOptions {
  readonly wrennDir: WrennDir;
  /** A folder of the store's file system that holds `rootfs.ext4`; becomes the image's folder. */
  readonly folder: string;
  readonly sizeBytes: number;
  readonly description: ImageDescription;
  /** What the file must be, where that is known. */
  readonly expectedSha256?: string;
  readonly signal: AbortSignal;
}

/** A root file system is another one than it should be. */
export class WrongContentError extends Error {
  override readonly name = 'WrongContentError';
}

/**
 * Gives a finished root file system its place in the store, named after its content, and points the image's name at
 * it. The file never changes after that. A crash at any point leaves the old image or the new one.
 *
 * @throws WrongContentError when the file is not the expected one
 */
export async function publishImage(options: PublishOptions): Promise<ImageManifest> {
  const { wrennDir, folder, description } = options;
  checkImageName(description.name);
  const rootfs = join(folder, 'rootfs.ext4');
  const sha256 = await hashSparseFile(rootfs, options.signal);
  const { expectedSha256 = sha256 } = options;
  if (sha256 !== expectedSha256) throw new WrongContentError(`it is ${sha256} and not ${expectedSha256}`);
  const manifest: ImageManifest = {
    ...description,
    sha256,
    sizeBytes: options.sizeBytes,
    format: 'ext4',
    createdAt: new Date().toISOString(),
  };
  await writeFile(join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  await Promise.all([chmod(rootfs, 0o444), chmod(join(folder, 'manifest.json'), 0o444), chmod(folder, 0o755)]);
  await flushTree(folder);

  await mkdir(wrennDir.imageStore, { recursive: true });
  const target = join(wrennDir.imageStore, sha256);
  // The same bytes under another description: the newer description replaces the older.
  if (existsSync(target)) await rename(join(folder, 'manifest.json'), join(target, 'manifest.json'));
  else await place(folder, target);
  await flush(target);
  await rm(folder, { recursive: true, force: true });
  await swapLink(wrennDir.image(description.name), join('store', sha256));
  return manifest;
}

/** Removes what interrupted builds left. Only for the holder of the build lock. */
export async function removeLeftovers(wrennDir: WrennDir): Promise<string[]> {
  const folders = [
    wrennDir.images,
    wrennDir.imageStore,
    wrennDir.kernels,
    wrennDir.cache,
    join(wrennDir.cache, 'debs'),
  ];
  return (await Promise.all(folders.map(removePartials))).flat();
}
