import { z } from 'zod';

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

/** `manifest.json` beside an image's `rootfs.ext4`. Additions are additive; readers ignore keys that they don't know. */
export const imageManifest = z.object({
  name: z.string(),
  /** Of the whole `rootfs.ext4`, holes read as zeros; also the name of its folder in the store. */
  sha256,
  sizeBytes: z.int().positive(),
  format: z.literal('ext4'),
  /** Debian's or npm's word for the architecture of the programs inside. */
  arch: z.enum(['amd64', 'arm64']),
  /** Installed packages by the root file system's own package manager, name → version. */
  packages: z.record(z.string(), z.string()),
  envdVersion: z.string(),
  nodeVersion: z.string(),
  /** The kernel whose modules the image carries. Images boot with any kernel; modules load with this one. */
  kernelVersion: z.string(),
  defaultUser: z.string(),
  defaultWorkdir: z.string(),
  defaultEnvs: z.record(z.string(), z.string()),
  /** Hash of what the image was made from apart from the guest agent. */
  source: sha256,
  /** Hash of everything that the image was made from; equal inputs are not built again. */
  inputs: sha256,
  /** RFC 3339. */
  createdAt: z.iso.datetime(),
});

export type ImageManifest = z.output<typeof imageManifest>;

/** `kernel-{version}.json` beside a kernel that Wrenn prepared. */
export const kernelManifest = z.object({
  version: z.string(),
  package: z.object({ name: z.string(), version: z.string() }),
  vmlinuxSha256: sha256,
  initramfsSha256: sha256,
  /** Modules that the initramfs loads, in order. */
  modules: z.array(z.string()),
  inputs: sha256,
  createdAt: z.iso.datetime(),
});

export type KernelManifest = z.output<typeof kernelManifest>;
