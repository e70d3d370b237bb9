import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { type GuestImage, type GuestKernel, newestKernel, readImage } from '@wrenn/guest-image/catalog';
import type { HypervisorIdentity } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';
import { checkFreeSpace } from '../disk/overlay.ts';
import { type TemplateInputs, templateInputs, templateKey } from '../templates/template-key.ts';
import { checkShape, effectiveDiskMb, hostCapacity } from './check-spec.ts';
import type { VmRequest } from './vm.ts';

/** A VM of a template that this host can make, with all that it refers to. */
export interface VmPlan {
  readonly image: GuestImage;
  readonly kernel: GuestKernel;
  readonly diskMb: number;
  readonly inputs: TemplateInputs;
}

/**
 * Checks a request before anything is made.
 *
 * @throws WrennError invalid_shape, invalid_request, template_not_found, host_disk_full, vm_start_failed
 */
export async function planVm(
  dir: WrennDir,
  identity: HypervisorIdentity,
  request: Pick<VmRequest, 'template' | 'shape' | 'diskMb'>,
): Promise<VmPlan> {
  checkShape(request.shape, hostCapacity());
  const [image, kernel] = await Promise.all([
    readImage(dir, request.template),
    requireKernel(dir),
    checkFreeSpace(dir.capsules),
  ]);
  const diskMb = effectiveDiskMb(request.diskMb, image.manifest.sizeBytes);
  const inputs = await templateInputs(image, kernel, request.shape, diskMb, identity);
  return { image, kernel, diskMb, inputs };
}

/** Key of the template snapshot that such a request would start from now. Unlike a plan it asks for no free memory. */
export async function templateKeyNow(
  dir: WrennDir,
  identity: HypervisorIdentity,
  { template, shape, diskMb }: Pick<VmRequest, 'template' | 'shape' | 'diskMb'>,
): Promise<string> {
  const [image, kernel] = await Promise.all([readImage(dir, template), requireKernel(dir)]);
  const size = effectiveDiskMb(diskMb, image.manifest.sizeBytes);
  return templateKey(await templateInputs(image, kernel, shape, size, identity));
}

/** @throws WrennError vm_start_failed */
export async function requireKernel(dir: WrennDir): Promise<GuestKernel> {
  const kernel = await newestKernel(dir);
  if (!kernel) throw new WrennError('vm_start_failed', { problem: 'there is no guest kernel on its host.' });
  return kernel;
}
