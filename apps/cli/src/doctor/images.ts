import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { listImages, newestKernel } from '@wrenn/guest-image/catalog';
import { systemCodeOf } from '../cli-error.ts';
import { formatBytes } from '../terminal/format.ts';
import { type Finding, fail, ok, warn } from './finding.ts';

const REBUILD = 'Build it: `make image`, or start `wrenn up`, which builds what is missing.';

/**
 * The guest kernel and the images, and whether they are what was built. With `full` every byte of the images is read,
 * which takes a while; without, their size and the beginning of their file system.
 */
export async function checkImages(dir: WrennDir, full: boolean, signal: AbortSignal): Promise<Finding[]> {
  return [...(await checkKernel(dir, signal)), ...(await checkRootfs(dir, full, signal))];
}

async function checkKernel(dir: WrennDir, signal: AbortSignal): Promise<Finding[]> {
  const kernel = await newestKernel(dir);
  if (kernel === undefined) return [fail('kernel', `there is none in ${dir.kernels}`, REBUILD)];
  const { version, manifest, vmlinuxPath, initramfsPath } = kernel;
  if (manifest === undefined) {
    return [warn('kernel', `${version}, which was put there by hand: nothing says what it should contain`, REBUILD)];
  }
  const files = [
    { path: vmlinuxPath, sha256: manifest.vmlinuxSha256 },
    { path: initramfsPath, sha256: manifest.initramfsSha256 },
  ];
  for (const file of files) {
    const damage = await damageOf(file, signal);
    if (damage !== undefined) return [fail('kernel', `${version}: ${damage}`, REBUILD)];
  }
  return [ok('kernel', `${version}, from package ${manifest.package.name}, intact`)];
}

async function checkRootfs(dir: WrennDir, full: boolean, signal: AbortSignal): Promise<Finding[]> {
  const images = await listImages(dir);
  const findings: Finding[] = [];
  if (!images.some(({ name }) => name === 'minimal')) {
    findings.push(fail('image minimal', `there is none in ${dir.images}`, REBUILD));
  }
  for (const { name, rootfsPath, manifest } of images) {
    const damage = full
      ? await damageOf({ path: rootfsPath, sha256: manifest.sha256 }, signal)
      : await visibleDamageOf(rootfsPath, manifest.sizeBytes);
    const what = `image ${name}`;
    const size = formatBytes(manifest.sizeBytes);
    findings.push(
      damage === undefined
        ? ok(
            what,
            `${size}, ${Object.keys(manifest.packages).length} packages, envd ${manifest.envdVersion}${full ? ', intact' : ''}`,
          )
        : fail(what, damage, `Remove ${dir.image(name)} and build the image again.`),
    );
  }
  return findings;
}

/** What is wrong with a file whose content is known; undefined when nothing is. */
export async function damageOf(
  { path, sha256 }: { path: string; sha256: string },
  signal: AbortSignal,
): Promise<string | undefined> {
  const hash = createHash('sha256');
  try {
    await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), hash, { signal });
  } catch (error) {
    return describeUnreadable(path, error);
  }
  return hash.digest('hex') === sha256 ? undefined : `${path} does not have the content that it was built with`;
}

/** Where ext4 has its magic number: the superblock is at byte 1024, and the number 0x38 bytes into it. */
const EXT4_MAGIC = { offset: 1024 + 0x38, bytes: Buffer.from([0x53, 0xef]) };

/** What is wrong with an ext4 image that can be seen without reading it all. */
export async function visibleDamageOf(path: string, sizeBytes: number): Promise<string | undefined> {
  try {
    await using file = await open(path, 'r');
    const { size } = await file.stat();
    if (size !== sizeBytes) return `${path} has ${size} bytes instead of ${sizeBytes}`;
    const { buffer } = await file.read(Buffer.alloc(2), 0, 2, EXT4_MAGIC.offset);
    return buffer.equals(EXT4_MAGIC.bytes) ? undefined : `${path} holds no ext4 file system`;
  } catch (error) {
    return describeUnreadable(path, error);
  }
}

const UNREADABLE: Readonly<Record<string, string>> = {
  ENOENT: 'is missing',
  EACCES: 'may not be read by you',
  EIO: 'cannot be read from the disk',
};

function describeUnreadable(path: string, error: unknown): string {
  const problem = UNREADABLE[systemCodeOf(error) ?? ''];
  if (problem === undefined) throw error;
  return `${path} ${problem}`;
}
