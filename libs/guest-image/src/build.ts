import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import {
  type BuildOptions,
  type BuildSession,
  type PreparedGuest,
  prepareGuest,
  withBuildSession,
} from './build-session.ts';
import { type GuestImage, type GuestKernel, newestKernel, readImage } from './catalog.ts';
import { DEFAULT_ROOTFS_SIZE_MB } from './ext4.ts';
import { imageFromRoot, imageInputs, unpackRoot } from './image-from-root.ts';
import { hashOf } from './inputs.ts';
import { minimalBase, minimalBaseInputs } from './minimal-base.ts';
import { installNodeCommands, NPM_VERSION, npmTarball } from './npm-package.ts';
import { reportStep } from './progress.ts';

export interface GuestImages {
  /** The kernel that VMs boot with. */
  readonly kernel: GuestKernel;
  readonly image: GuestImage;
}

/**
 * Sees to it that the kernel and the `minimal` image are there and up to date. Does nothing that is done already, and
 * needs the network only for packages that the cache lacks.
 *
 * @throws WrennError host_tool_missing, package_download_failed, host_disk_full, image_build_failed.
 */
export async function ensureGuestImages(options: BuildOptions): Promise<GuestImages> {
  return withBuildSession(options, async (session) => {
    const guest = await prepareGuest(session);
    await ensureMinimal(session, guest);
    const kernel = await newestKernel(session.wrennDir);
    if (!kernel) throw new WrennError('image_build_failed', { step: 'kernel', problem: 'the kernel is gone again' });
    return { kernel, image: await readImage(session.wrennDir, 'minimal') };
  });
}

async function ensureMinimal(session: BuildSession, guest: PreparedGuest): Promise<void> {
  const { wrennDir, onProgress, signal } = session;
  const sizeMb = DEFAULT_ROOTFS_SIZE_MB;
  const source = hashOf({ base: await minimalBaseInputs(session.codename), npm: NPM_VERSION, sizeMb });
  const inputs = await imageInputs(source, guest);
  const current = await imageIfThere(wrennDir, 'minimal');
  if (current?.manifest.inputs === inputs && !session.refresh) {
    onProgress({ step: 'image minimal', state: 'cached', detail: current.manifest.sha256.slice(0, 12), elapsedMs: 0 });
    return;
  }
  const base = await reportStep(onProgress, 'packages of minimal', (note) => minimalBase({ ...session, note }));
  await reportStep(onProgress, 'image minimal', async (note) => {
    const rootDir = join(session.workDir, 'root');
    note('unpacking');
    await unpackRoot(base.tarball, rootDir, signal);
    await installNodeCommands(rootDir, await npmTarball(wrennDir, signal), signal);
    const defaults = { defaultUser: 'user', defaultWorkdir: '/home/user', defaultEnvs: {} };
    return imageFromRoot(session, { guest, rootDir, name: 'minimal', source, sizeMb, defaults, note });
  });
}

/** Undefined also for an image of another version of Wrenn, which is made anew. */
async function imageIfThere(wrennDir: WrennDir, name: string): Promise<GuestImage | undefined> {
  try {
    return await readImage(wrennDir, name);
  } catch (error) {
    if (error instanceof WrennError) return undefined;
    throw error;
  }
}
