import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ensureGuestImages } from './build.ts';
import { type BuildOptions, prepareGuest, withBuildSession } from './build-session.ts';
import { readImage } from './catalog.ts';
import { runCommand } from './command.ts';
import { replaceFolder } from './ext4-editor.ts';
import { writeAgentFolder } from './guest-agent.ts';
import { guestDescription, imageInputs } from './image-from-root.ts';
import { publishImage } from './image-store.ts';
import type { ImageManifest } from './manifest.ts';
import { reportStep } from './progress.ts';

/**
 * Gives an image the guest agent of this version of Wrenn. The image is copied and the copy published under the name;
 * capsules that run on the old one keep it.
 *
 * @throws WrennError template_not_found and the errors of a build.
 */
export async function updateEnvd(options: BuildOptions & { readonly name: string }): Promise<ImageManifest> {
  const { name, wrennDir } = options;
  // The base of `minimal` is in the cache, so it is simply made again.
  if (name === 'minimal') return (await ensureGuestImages(options)).image.manifest;
  await readImage(wrennDir, name);
  return withBuildSession(options, async (session) => {
    const image = await readImage(wrennDir, name);
    const guest = await prepareGuest(session);
    const { manifest } = await reportStep(session.onProgress, `image ${name}`, async (note) => {
      if (image.manifest.inputs === (await imageInputs(image.manifest.source, guest))) {
        return { manifest: image.manifest, cached: true, detail: `envd ${image.manifest.envdVersion}` };
      }
      const { signal } = session;
      const folder = join(session.workDir, 'image');
      const agentFolder = join(session.workDir, 'agent');
      await mkdir(folder);
      await mkdir(agentFolder);
      await writeAgentFolder(agentFolder, guest.agent);
      const rootfs = join(folder, 'rootfs.ext4');
      note('copying');
      const copy = ['--sparse=always', '--reflink=auto', '--no-preserve=mode', image.rootfsPath, rootfs];
      await runCommand('cp', copy, { signal, timeoutMs: 1_800_000 });
      note('replacing the guest agent');
      await replaceFolder(rootfs, '/opt/wrenn', agentFolder, signal);
      note('checksum');
      const { sha256, format, createdAt, sizeBytes, ...kept } = image.manifest;
      const description = { ...kept, ...(await guestDescription(image.manifest.source, guest)) };
      const updated = await publishImage({ wrennDir, folder, sizeBytes, description, signal });
      return { manifest: updated, detail: `envd ${updated.envdVersion}` };
    });
    return manifest;
  });
}
