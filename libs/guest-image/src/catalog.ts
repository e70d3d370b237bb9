import type { Dirent } from 'node:fs';
import { readdir, readFile, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import semver from 'semver';
import { z } from 'zod';
import { type ImageManifest, imageManifest, type KernelManifest, kernelManifest } from './manifest.ts';

/** A kernel and the initramfs that belongs to it. */
export interface GuestKernel {
  /** Semantic version; Debian's revision is its pre-release part: `6.1.192-2`. */
  readonly version: string;
  readonly vmlinuxPath: string;
  readonly initramfsPath: string;
  /** Absent for a kernel that somebody put there by hand. */
  readonly manifest: KernelManifest | undefined;
}

export interface GuestImage {
  readonly name: string;
  /** In the store, with links resolved: the same path as long as the image exists, whatever the name points at later. */
  readonly rootfsPath: string;
  readonly manifest: ImageManifest;
}

/** Lower-case words of a file name: what a template can be called. */
const IMAGE_NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/;

/** @throws WrennError invalid_request */
export function checkImageName(name: string): void {
  if (IMAGE_NAME.test(name) && name !== 'store') return;
  throw new WrennError('invalid_request', {
    problem: `"${name}" cannot be the name of an image: use up to 63 lower-case letters, digits, ".", "_", "-"`,
  });
}

/** Every kernel with an initramfs of the same version, newest first. */
export async function listKernels(wrennDir: WrennDir): Promise<GuestKernel[]> {
  const names = new Set((await entries(wrennDir.kernels)).map((entry) => entry.name));
  const versions = [...names]
    .flatMap((name) => /^vmlinux-(.+)$/.exec(name)?.[1] ?? [])
    .filter((version) => semver.valid(version) !== null && names.has(`initramfs-${version}`))
    .sort(semver.rcompare);
  return Promise.all(
    versions.map(async (version) => ({
      version,
      vmlinuxPath: join(wrennDir.kernels, `vmlinux-${version}`),
      initramfsPath: join(wrennDir.kernels, `initramfs-${version}`),
      manifest: names.has(`kernel-${version}.json`)
        ? kernelManifest.parse(await readJson(join(wrennDir.kernels, `kernel-${version}.json`)))
        : undefined,
    })),
  );
}

/** The kernel that VMs boot with: the highest semantic version. Undefined when there is none. */
export async function newestKernel(wrennDir: WrennDir): Promise<GuestKernel | undefined> {
  return (await listKernels(wrennDir))[0];
}

/**
 * @throws WrennError template_not_found; invalid_request for what cannot be a name; image_build_failed for an image
 * whose manifest this version of Wrenn cannot read.
 */
export async function readImage(wrennDir: WrennDir, name: string): Promise<GuestImage> {
  checkImageName(name);
  try {
    const folder = await realpath(wrennDir.image(name));
    const manifest = imageManifest.parse(await readJson(join(folder, 'manifest.json')));
    return { name, rootfsPath: join(folder, 'rootfs.ext4'), manifest };
  } catch (error) {
    if (isNotFound(error)) throw new WrennError('template_not_found', { name }, { cause: error });
    if (!(error instanceof z.ZodError || error instanceof SyntaxError)) throw error;
    const problem = `the manifest of ${name} is damaged or of another version`;
    throw new WrennError('image_build_failed', { step: 'catalogue', problem }, { cause: error });
  }
}

/** All images that can be used, by name. `onUnreadable` hears of the others. */
export async function listImages(
  wrennDir: WrennDir,
  onUnreadable: (name: string, error: WrennError) => void = () => {},
): Promise<GuestImage[]> {
  const names = (await entries(wrennDir.images))
    .filter((entry) => entry.isSymbolicLink() && IMAGE_NAME.test(entry.name))
    .map((entry) => entry.name)
    .sort();
  const images: GuestImage[] = [];
  for (const name of names) {
    try {
      images.push(await readImage(wrennDir, name));
    } catch (error) {
      if (!(error instanceof WrennError)) throw error;
      onUnreadable(name, error);
    }
  }
  return images;
}

async function entries(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    if (isNotFound(error)) return [];
    throw error;
  }
}

async function readJson(path: string): Promise<unknown> {
  return JSON.parse(await readFile(path, 'utf8'));
}

function isNotFound(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}
