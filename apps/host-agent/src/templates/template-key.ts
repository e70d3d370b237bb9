import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import type { GuestImage, GuestKernel } from '@wrenn/guest-image/catalog';
import type { HypervisorIdentity, VmShape } from '@wrenn/hypervisor/hypervisor';
import { z } from 'zod';
import { hypervisorIdentitySchema } from '../journal/hypervisor-identity.ts';

/** Raised when the way in which snapshots are made changes, so that older ones are not used any more. */
const SNAPSHOT_FORMAT = 3;

export const templateInputsSchema = z.object({
  format: z.number().int(),
  template: z.string(),
  imageSha256: z.string(),
  envdVersion: z.string(),
  kernelVersion: z.string(),
  /** Content of kernel and initramfs. */
  kernelSum: z.string(),
  shape: z.object({ vcpus: z.number().int(), memoryMb: z.number().int() }),
  diskMb: z.number().int(),
  hypervisor: hypervisorIdentitySchema,
});

/** Everything that a template's memory snapshot depends on. */
export type TemplateInputs = z.infer<typeof templateInputsSchema>;

/** The inputs of the snapshot that a VM of this image and shape starts from. */
export async function templateInputs(
  image: GuestImage,
  kernel: GuestKernel,
  shape: VmShape,
  diskMb: number,
  { kind, version, accelerator, arch, cpu }: HypervisorIdentity,
): Promise<TemplateInputs> {
  return {
    format: SNAPSHOT_FORMAT,
    template: image.name,
    imageSha256: image.manifest.sha256,
    envdVersion: image.manifest.envdVersion,
    kernelVersion: kernel.version,
    kernelSum: await kernelSum(kernel),
    shape: { vcpus: shape.vcpus, memoryMb: shape.memoryMb },
    diskMb,
    hypervisor: { kind, version, accelerator, arch, cpu },
  };
}

/** Name of the snapshot's folder: equal for equal inputs, whatever the template is called. */
export function templateKey({ template: _, ...content }: TemplateInputs): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 32);
}

async function kernelSum({ manifest, vmlinuxPath, initramfsPath }: GuestKernel): Promise<string> {
  if (manifest) return `${manifest.vmlinuxSha256}:${manifest.initramfsSha256}`;
  // Put there by hand: its size and time tell it from another one without reading it.
  const [vmlinux, initramfs] = await Promise.all([stat(vmlinuxPath), stat(initramfsPath)]);
  return [vmlinux, initramfs].map((file) => `${file.size}@${file.mtimeMs}`).join(':');
}
