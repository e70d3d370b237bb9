import { mkdir, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildSession, PreparedGuest } from './build-session.ts';
import { runCommand } from './command.ts';
import { hostArchitecture } from './debian-archive.ts';
import { allocatedBytes, MIB, makeExt4 } from './ext4.ts';
import { agentFilesHash, installGuestAgent } from './guest-agent.ts';
import { publishImage } from './image-store.ts';
import { hashOf } from './inputs.ts';
import { installedPackages } from './installed-packages.ts';
import type { ImageManifest } from './manifest.ts';

/** What commands in a capsule run as when nobody says otherwise. */
export type ImageDefaults = Pick<ImageManifest, 'defaultUser' | 'defaultWorkdir' | 'defaultEnvs'>;

interface RootToImage {
  readonly guest: PreparedGuest;
  /** The root file system as a folder, without the guest agent. */
  readonly rootDir: string;
  readonly name: string;
  readonly sizeMb: number;
  /** Hash of all that the image is made from apart from the guest agent. */
  readonly source: string;
  readonly defaults: ImageDefaults;
  readonly note: (detail: string) => void;
}

/** The inputs key of an image: where it comes from, and agent, envd, kernel modules and Node.js of the guest. */
export async function imageInputs(source: string, { kernel, agent }: PreparedGuest): Promise<string> {
  return hashOf({
    source,
    files: await agentFilesHash(),
    envd: agent.envd.hash,
    node: agent.runtime.nodeVersion,
    runtime: agent.runtime.folder.split('/').at(-1),
    kernel: [kernel.version, kernel.inputs],
  });
}

/** Adds the guest agent to a root file system and publishes it as an image. */
export async function imageFromRoot(
  session: BuildSession,
  source: RootToImage,
): Promise<{ manifest: ImageManifest; detail: string }> {
  const { guest, rootDir, sizeMb, note } = source;
  note('adding the guest agent');
  await installGuestAgent(rootDir, guest.agent);
  const folder = join(session.workDir, `image-${source.name}`);
  await mkdir(folder);
  const imagePath = join(folder, 'rootfs.ext4');
  note('writing ext4');
  await makeExt4({ rootDir, imagePath, sizeMb, seed: source.source, signal: session.signal });
  const used = await allocatedBytes(imagePath);
  note('checksum');
  const manifest = await publishImage({
    wrennDir: session.wrennDir,
    folder,
    sizeBytes: sizeMb * MIB,
    signal: session.signal,
    description: {
      name: source.name,
      packages: await installedPackages(rootDir),
      ...source.defaults,
      ...(await guestDescription(source.source, guest)),
    },
  });
  return { manifest, detail: `${manifest.sha256.slice(0, 12)}, ${Math.round(used / MIB)} MiB on disk` };
}

/** The part of a manifest that the guest agent decides. */
export async function guestDescription(source: string, guest: PreparedGuest) {
  return {
    arch: hostArchitecture().debian,
    envdVersion: guest.agent.envd.version,
    nodeVersion: guest.agent.runtime.nodeVersion,
    kernelVersion: guest.kernel.version,
    source,
    inputs: await imageInputs(source, guest),
  };
}

/** Unpacks a tarball (plain, gzip, xz or zstd) with owners, modes, links and extended attributes. */
export async function unpackRoot(tarball: string, rootDir: string, signal: AbortSignal): Promise<void> {
  // Nobody but root may reach set-user-id programs and devices of an unknown root file system.
  await mkdir(rootDir, { mode: 0o700 });
  const args = ['--extract', '--numeric-owner', '--xattrs', '--xattrs-include=*', `--file=${await realpath(tarball)}`];
  await runCommand('tar', [...args, `--directory=${rootDir}`], { signal, timeoutMs: 1_800_000 });
}
