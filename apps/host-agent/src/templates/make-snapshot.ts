import { chown, copyFile, mkdir, rename, rm } from 'node:fs/promises';
import type { Turns } from '@wrenn/config/turns';
import type { GuestImage, GuestKernel } from '@wrenn/guest-image/catalog';
import type { Hypervisor } from '@wrenn/hypervisor/hypervisor';
import type { Logger } from 'pino';
import type { VmCgroups } from '../confinement/vm-cgroups.ts';
import { diskFolder, diskOf, linkFile, nextLayer } from '../disk/disk-chain.ts';
import { checkFreeSpace, createBlankOverlay } from '../disk/overlay.ts';
import { growFileSystem } from '../guest/grow-file-system.ts';
import { prepareGuestForSnapshot, waitForGuest } from '../guest/init-guest.ts';
import { warmUpGuest } from '../guest/warm-up.ts';
import type { GuestDefaults } from '../journal/vm-record.ts';
import type { SlotPool } from '../network/slot-pool.ts';
import { sealFolder, snapshotFolder } from '../snapshots/sealed-folder.ts';
import { MANIFEST_VERSION } from '../snapshots/snapshot-manifest.ts';
import { whileRunning } from '../vms/race-exit.ts';
import { Trace } from '../vms/trace.ts';
import { readTail, vmFolder } from '../vms/vm-folder.ts';
import { vmSpec } from '../vms/vm-spec.ts';
import { type TemplateInputs, templateKey } from './template-key.ts';

const MIB = 1024 * 1024;
const WARM_UP_STEP_MS = 30_000;
/** Under emulation a boot takes 5 s on an idle machine and was seen to take 20 s on a busy one. */
const UP_TIMEOUT_MS = 60_000;

/** What runs VMs on this host. */
export interface VmResources {
  readonly hypervisor: Hypervisor;
  readonly slots: SlotPool;
  readonly cgroups: VmCgroups;
  /** Starts that wait for each other: all at once would take so long that each is given up. */
  readonly starts: Turns;
}

export interface SnapshotSource {
  readonly inputs: TemplateInputs;
  readonly image: GuestImage;
  readonly kernel: GuestKernel;
}

/** A guest that was booted cold did not come up, or ended on the way. */
export class GuestNotUpError extends Error {
  override readonly name = 'GuestNotUpError';
}

const BASE_LAYER = '0.raw';

/** Name of the VM, and of its cgroup, that the snapshot `key` is taken from. */
export function makerId(key: string): string {
  return `template-${key.slice(0, 16)}`;
}

/**
 * Boots a template cold, waits until its guest agent is up and settled, and keeps memory, devices and disk of that
 * instant in the folder `final`, which is there as a whole or not at all.
 */
export async function makeTemplateSnapshot(
  { hypervisor, slots, cgroups }: VmResources,
  { inputs, image, kernel }: SnapshotSource,
  final: string,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const key = templateKey(inputs);
  const id = makerId(key);
  const partial = `${final}.partial`;
  const folder = { ...snapshotFolder(partial), ...diskFolder(partial), runDir: vmFolder(partial).runDir };
  await rm(folder.dir, { recursive: true, force: true });
  await checkFreeSpace(final.slice(0, final.lastIndexOf('/')), inputs.shape.memoryMb * MIB);
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(folder.dir, { recursive: true, force: true }));
  await mkdir(folder.runDir, { recursive: true, mode: 0o711 });
  await mkdir(folder.memory);
  await mkdir(folder.layers, { mode: 0o700 });
  const slot = await slots.acquire(signal);
  cleanup.defer(() => slots.release(slot));
  cleanup.defer(() => cgroups.remove(id));
  const cgroupProcs = await cgroups.create(id, inputs.shape);
  await createBlankOverlay(folder.blank, inputs.diskMb, signal);
  await Promise.all([linkFile(image.rootfsPath, folder.layer(BASE_LAYER)), copyFile(folder.blank, folder.own)]);
  for (const dir of [folder.runDir, folder.memory]) await chown(dir, slot.uid, slot.gid);
  const disk = diskOf(partial, [BASE_LAYER]);
  const spec = vmSpec({ id, shape: inputs.shape, kernel, disk, slot, cgroupProcs, runDir: folder.runDir });
  const trace = new Trace();
  const vm = await trace.step('boot', () => hypervisor.boot(spec, signal));
  try {
    await whileRunning(vm, signal, async (alive) => {
      await trace.step('up', () => waitUntilUp(slot.hostIp, alive));
      if (inputs.diskMb * MIB > image.manifest.sizeBytes) {
        await trace.step('grow', () => growFileSystem(slot.hostIp, alive));
      }
      const { defaultUser: user, defaultWorkdir: workdir } = image.manifest;
      const warmUp = { hostIp: slot.hostIp, user, workdir, timeoutMs: WARM_UP_STEP_MS };
      const problems = await trace.step('warm-up', () => warmUpGuest(warmUp, alive));
      if (problems.length > 0)
        log.warn({ template: image.name, problems: problems.map(String) }, 'warm-up is incomplete');
      await trace.step('prepare', () => prepareGuestForSnapshot(slot.hostIp, '', alive));
      await trace.step('save', async () => {
        await vm.pause(alive);
        await vm.saveSnapshot(folder.memory, alive);
      });
    });
  } catch (error) {
    const console = await readTail(vmFolder(folder.dir).console, 2000);
    log.error({ err: error, steps: trace.steps, console: console.toString() }, 'no template snapshot could be made');
    throw error;
  } finally {
    await vm.kill();
  }
  log.debug({ steps: trace.steps }, 'template snapshot taken');
  await rm(folder.runDir, { recursive: true });
  await chown(folder.memory, 0, 0);
  const frozen = nextLayer([BASE_LAYER]);
  await rename(folder.own, folder.layer(frozen));
  const { template, imageSha256, shape, diskMb } = inputs;
  const manifest = {
    version: MANIFEST_VERSION,
    kind: 'template',
    id: key,
    generation: 1,
    inputs,
    hypervisor: inputs.hypervisor,
    template,
    imageSha256,
    shape,
    diskMb,
    requestedDiskMb: diskMb,
    layers: [BASE_LAYER, frozen],
    sharedLayers: 2,
    guestToken: '',
    defaults: imageDefaults(image),
    versions: {},
    createdAt: new Date().toISOString(),
  } as const;
  await sealFolder({ partial, final, manifest: { ...manifest, layers: [...manifest.layers] } }, signal);
}

/** What the image's maker wants its guests to be told. */
export function imageDefaults({ manifest }: GuestImage): GuestDefaults {
  return { user: manifest.defaultUser, workdir: manifest.defaultWorkdir, envs: { ...manifest.defaultEnvs } };
}

async function waitUntilUp(hostIp: string, signal: AbortSignal): Promise<void> {
  try {
    await waitForGuest(hostIp, AbortSignal.any([signal, AbortSignal.timeout(UP_TIMEOUT_MS)]));
  } catch (error) {
    throw new GuestNotUpError('the guest agent of a template did not come up', { cause: error });
  }
}
