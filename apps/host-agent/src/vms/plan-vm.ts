import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { type GuestImage, type GuestKernel, newestKernel, readImage } from '@wrenn/guest-image/catalog';
import type { HypervisorIdentity } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';
import { checkFreeSpace } from '../disk/overlay.ts';
import type { GuestSettings } from '../guest/init-guest.ts';
import { type TemplateInputs, templateInputs } from '../templates/template-key.ts';
import { checkShape, effectiveDiskMb, hostCapacity } from './check-spec.ts';
import type { VmRequest } from './vm.ts';

/** A request that this host can fulfil, with all that it refers to. */
export interface VmPlan {
  readonly image: GuestImage;
  readonly kernel: GuestKernel;
  readonly diskMb: number;
  readonly inputs: TemplateInputs;
  readonly settings: GuestSettings;
}

/**
 * Checks a request before anything is made.
 *
 * @throws WrennError invalid_shape, invalid_request, template_not_found, host_disk_full, vm_start_failed
 */
export async function planVm(dir: WrennDir, identity: HypervisorIdentity, request: VmRequest): Promise<VmPlan> {
  checkShape(request.shape, hostCapacity());
  const [image, kernel] = await Promise.all([
    readImage(dir, request.template),
    newestKernel(dir),
    checkFreeSpace(dir.capsules),
  ]);
  if (!kernel) throw new WrennError('vm_start_failed', { problem: 'there is no guest kernel on its host.' });
  const diskMb = effectiveDiskMb(request.diskMb, image.manifest.sizeBytes);
  const inputs = await templateInputs(image, kernel, request.shape, diskMb, identity);
  return { image, kernel, diskMb, inputs, settings: guestSettings(image, request) };
}

/** What the request says, and the template's defaults where it says nothing. */
function guestSettings({ manifest }: GuestImage, { id, init }: VmRequest): GuestSettings {
  return {
    accessToken: init.accessToken,
    envs: { ...manifest.defaultEnvs, ...init.envs },
    user: init.user || manifest.defaultUser,
    workdir: init.workdir || manifest.defaultWorkdir,
    hostname: init.hostname || id,
  };
}
