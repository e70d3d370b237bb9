import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { listImages, newestKernel } from '@wrenn/guest-image/catalog';
import { systemCodeOf } from '../cli-error.ts';
import { formatBytes } from '../terminal/format.ts';
import { type Finding, fail, ok, warn } from './finding.ts';

const REBUILD = 'Build it: `make image`, or start `wrenn up`, which builds what is missing.';

/** The guest kernel and the images, and whether their contents are what was built. */
export async function checkImages(dir: WrennDir, signal: AbortSignal): Promise<Finding[]> {
  return [...(await checkKernel(dir, signal)), ...(await checkRootfs(dir, signal))];
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

async function checkRootfs(dir: WrennDir, signal: AbortSignal): Promise<Finding[]> {
  const images = await listImages(dir);
  const findings: Finding[] = [];
  if (!images.some(({ name }) => name === 'minimal')) {
    findings.push(fail('image minimal', `there is none in ${dir.images}`, REBUILD));
  }
  for (const { name, rootfsPath, manifest } of images) {
    const damage = await damageOf({ path: rootfsPath, sha256: manifest.sha256 }, signal);
    const what = `image ${name}`;
    const size = formatBytes(manifest.sizeBytes);
    findings.push(
      damage === undefined
        ? ok(what, `${size}, ${Object.keys(manifest.packages).length} packages, envd ${manifest.envdVersion}, intact`)
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
    const code = systemCodeOf(error);
    if (code === 'ENOENT') return `${path} is missing`;
    if (code === 'EACCES') return `${path} may not be read by you`;
    if (code === 'EIO') return `${path} cannot be read from the disk`;
    throw error;
  }
  return hash.digest('hex') === sha256 ? undefined : `${path} does not have the content that it was built with`;
}
