import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { type BuildOptions, type BuildSession, prepareGuest, withBuildSession } from './build-session.ts';
import { checkImageName } from './catalog.ts';
import { CommandFailedError, findTool } from './command.ts';
import { exportContainer } from './docker-container.ts';
import { DEFAULT_ROOTFS_SIZE_MB } from './ext4.ts';
import { readForeignFile } from './foreign-root.ts';
import { type ImageDefaults, imageFromRoot, unpackRoot } from './image-from-root.ts';
import { hashOf } from './inputs.ts';
import type { ImageManifest } from './manifest.ts';
import { reportStep } from './progress.ts';
import { hashSparseFile } from './sparse-hash.ts';

export interface OwnImageOptions extends BuildOptions {
  readonly name: string;
  /** Size of the guest's disk. Default: 5 GiB. */
  readonly sizeMb?: number | undefined;
  /** Default: `user` where the root file system has one, else root. */
  readonly defaultUser?: string | undefined;
  /** Default: the user's home folder. */
  readonly defaultWorkdir?: string | undefined;
}

/**
 * Makes an image from a tarball of any Linux root file system (glibc, musl, or without a shell).
 *
 * @throws WrennError invalid_request for a name or file that cannot be used, image_build_failed, host_disk_full.
 */
export async function imageFromTarball(
  options: OwnImageOptions & { readonly tarball: string },
): Promise<ImageManifest> {
  checkOptions(options);
  if (!existsSync(options.tarball)) {
    throw new WrennError('invalid_request', { problem: `there is no file ${options.tarball}` });
  }
  return withBuildSession(options, (session) => fromTarball(session, options, options.tarball, {}));
}

/**
 * Makes an image from a container or container image of the Docker engine on this machine; the environment, user and
 * working directory that the container image states become the image's defaults.
 */
export async function imageFromContainer(
  options: OwnImageOptions & { readonly container: string },
): Promise<ImageManifest> {
  checkOptions(options);
  await findTool('docker');
  return withBuildSession(options, async (session) => {
    const { defaults, tarball } = await exportContainer(session, options.container);
    return fromTarball(session, options, tarball, defaults);
  });
}

function checkOptions(options: OwnImageOptions): void {
  checkImageName(options.name);
  if (options.name === 'minimal') {
    throw new WrennError('invalid_request', { problem: '`minimal` is built by Wrenn; give the image another name' });
  }
  if (options.sizeMb !== undefined && (!Number.isInteger(options.sizeMb) || options.sizeMb < 256)) {
    throw new WrennError('invalid_request', { problem: 'the size of an image is a whole number of MiB, at least 256' });
  }
}

async function fromTarball(
  session: BuildSession,
  options: OwnImageOptions,
  tarball: string,
  stated: Partial<ImageDefaults>,
): Promise<ImageManifest> {
  const guest = await prepareGuest(session);
  const { name, sizeMb = DEFAULT_ROOTFS_SIZE_MB } = options;
  const { manifest } = await reportStep(session.onProgress, `image ${name}`, async (note) => {
    const rootDir = join(session.workDir, 'root');
    note('unpacking');
    await unpackForeign(tarball, rootDir, session.signal);
    const source = hashOf({ tarball: await hashSparseFile(tarball, session.signal), sizeMb });
    const defaults = await chooseDefaults(rootDir, options, stated);
    return imageFromRoot(session, { guest, rootDir, name, source, sizeMb, defaults, note });
  });
  return manifest;
}

async function unpackForeign(tarball: string, rootDir: string, signal: AbortSignal): Promise<void> {
  try {
    await unpackRoot(tarball, rootDir, signal);
  } catch (error) {
    if (!(error instanceof CommandFailedError)) throw error;
    throw new WrennError(
      'invalid_request',
      { problem: `the tarball cannot be unpacked: ${error.message}` },
      { cause: error },
    );
  }
  const names = await readdir(rootDir);
  if (names.length === 0) throw new WrennError('invalid_request', { problem: 'the tarball is empty' });
  if (names.includes('manifest.json') && (names.includes('oci-layout') || names.includes('repositories'))) {
    throw new WrennError('invalid_request', {
      problem: 'the tarball holds the layers of a container image; make it with `docker export`, not `docker save`',
    });
  }
}

async function chooseDefaults(
  rootDir: string,
  options: OwnImageOptions,
  stated: Partial<ImageDefaults>,
): Promise<ImageDefaults> {
  const homes = await homeFolders(rootDir);
  const defaultUser = options.defaultUser ?? stated.defaultUser ?? (homes.has('user') ? 'user' : 'root');
  if (options.defaultUser !== undefined && defaultUser !== 'root' && !homes.has(defaultUser)) {
    throw new WrennError('invalid_request', { problem: `the root file system has no user ${defaultUser}` });
  }
  return {
    defaultUser,
    defaultWorkdir: options.defaultWorkdir ?? stated.defaultWorkdir ?? homes.get(defaultUser) ?? '/',
    defaultEnvs: stated.defaultEnvs ?? {},
  };
}

/** User → home folder, by the root file system's own /etc/passwd. */
async function homeFolders(rootDir: string): Promise<Map<string, string>> {
  const passwd = (await readForeignFile(rootDir, 'etc/passwd')) ?? '';
  const lines = passwd.split('\n').map((line) => line.split(':'));
  return new Map(lines.flatMap(([user, , , , , home]): [string, string][] => (user && home ? [[user, home]] : [])));
}
