import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { listImages, newestKernel, readImage } from './catalog.ts';
import { type Scratch, scratchFolder } from './testing/scratch.ts';

async function kernels(scratch: Scratch, ...names: string[]): Promise<void> {
  await mkdir(scratch.wrennDir.kernels, { recursive: true });
  for (const name of names) await writeFile(join(scratch.wrennDir.kernels, name), '');
}

describe('newestKernel', () => {
  it('takes the highest semantic version that has an initramfs', async () => {
    await using scratch = await scratchFolder();
    expect(await newestKernel(scratch.wrennDir)).toBeUndefined();
    await kernels(scratch, 'vmlinux-6.1.9-1', 'initramfs-6.1.9-1', 'vmlinux-6.1.10-1', 'initramfs-6.1.10-1');
    await kernels(scratch, 'vmlinux-6.1.10-12', 'initramfs-6.1.10-12', 'vmlinux-6.12.0', '.build.lock', 'vmlinux-new');
    expect(await newestKernel(scratch.wrennDir)).toEqual({
      version: '6.1.10-12',
      vmlinuxPath: join(scratch.wrennDir.kernels, 'vmlinux-6.1.10-12'),
      initramfsPath: join(scratch.wrennDir.kernels, 'initramfs-6.1.10-12'),
      manifest: undefined,
    });
  });
});

describe('readImage and listImages', () => {
  it('tell an image that is not there from one that cannot be read', async () => {
    await using scratch = await scratchFolder();
    const { wrennDir } = scratch;
    await mkdir(join(wrennDir.imageStore, 'damaged'), { recursive: true });
    await writeFile(join(wrennDir.imageStore, 'damaged', 'manifest.json'), '{"name":');
    await symlink('store/damaged', wrennDir.image('damaged'));
    await expect(readImage(wrennDir, 'absent')).rejects.toMatchObject({ code: 'template_not_found' });
    await expect(readImage(wrennDir, '../../etc')).rejects.toMatchObject({ code: 'invalid_request' });
    await expect(readImage(wrennDir, 'damaged')).rejects.toMatchObject({ code: 'image_build_failed' });
    const unreadable: string[] = [];
    expect(await listImages(wrennDir, (name) => unreadable.push(name))).toEqual([]);
    expect(unreadable).toEqual(['damaged']);
  });
});
