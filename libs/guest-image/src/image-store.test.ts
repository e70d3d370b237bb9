import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readImage } from './catalog.ts';
import { swapLink } from './durable-files.ts';
import { type ImageDescription, publishImage, removeLeftovers } from './image-store.ts';
import { type Scratch, scratchFolder } from './testing/scratch.ts';

const signal = new AbortController().signal;
const KEY = 'a'.repeat(64);

function description(overrides: Partial<ImageDescription> = {}): ImageDescription {
  return {
    name: 'mine',
    arch: 'amd64',
    packages: { bash: '5.2' },
    envdVersion: '0.1.0',
    nodeVersion: '24.0.0',
    kernelVersion: '6.1.0',
    defaultUser: 'user',
    defaultWorkdir: '/home/user',
    defaultEnvs: {},
    source: KEY,
    inputs: KEY,
    ...overrides,
  };
}

async function publish(scratch: Scratch, content: string, overrides: Partial<ImageDescription> = {}, stop = signal) {
  const folder = join(scratch.wrennDir.cache, `.${content}.partial`);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'rootfs.ext4'), content);
  const { wrennDir } = scratch;
  return publishImage({
    wrennDir,
    folder,
    sizeBytes: content.length,
    description: description(overrides),
    signal: stop,
  });
}

describe('publishImage', () => {
  it('stores an image under the hash of its content, read-only, and points the name at it', async () => {
    await using scratch = await scratchFolder();
    const manifest = await publish(scratch, 'first');
    // printf first | sha256sum
    expect(manifest.sha256).toBe('a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e');
    expect(await readlink(scratch.wrennDir.image('mine'))).toBe(`store/${manifest.sha256}`);
    const image = await readImage(scratch.wrennDir, 'mine');
    expect(image.manifest).toEqual(manifest);
    expect(await readFile(image.rootfsPath, 'utf8')).toBe('first');
    expect((await stat(image.rootfsPath)).mode & 0o777).toBe(0o444);
    expect(await readdir(scratch.wrennDir.cache)).toEqual([]);
  });

  it('leaves the old image where it is when the name moves on', async () => {
    await using scratch = await scratchFolder();
    await publish(scratch, 'first');
    const old = await readImage(scratch.wrennDir, 'mine');
    await publish(scratch, 'second');
    expect(await readFile(old.rootfsPath, 'utf8')).toBe('first');
    expect(await readFile((await readImage(scratch.wrennDir, 'mine')).rootfsPath, 'utf8')).toBe('second');
  });

  it('takes a newer description of the same bytes', async () => {
    await using scratch = await scratchFolder();
    const first = await publish(scratch, 'same');
    const second = await publish(scratch, 'same', { envdVersion: '0.2.0' });
    expect(second.sha256).toBe(first.sha256);
    expect((await readImage(scratch.wrennDir, 'mine')).manifest.envdVersion).toBe('0.2.0');
    expect(await readdir(scratch.wrennDir.imageStore)).toEqual([first.sha256]);
  });

  it('changes nothing when it is interrupted, and the next build clears up', async () => {
    await using scratch = await scratchFolder();
    const first = await publish(scratch, 'first');
    await expect(publish(scratch, 'second', {}, AbortSignal.abort(new Error('stop')))).rejects.toThrow('stop');
    expect((await readImage(scratch.wrennDir, 'mine')).manifest.sha256).toBe(first.sha256);
    expect(await readdir(scratch.wrennDir.imageStore)).toEqual([first.sha256]);
    expect(await removeLeftovers(scratch.wrennDir)).toEqual(['.second.partial']);
    expect(existsSync(join(scratch.wrennDir.cache, '.second.partial'))).toBe(false);
  });

  it('refuses a name that leads elsewhere', async () => {
    await using scratch = await scratchFolder();
    await expect(publish(scratch, 'x', { name: '../out' })).rejects.toMatchObject({ code: 'invalid_request' });
    await expect(publish(scratch, 'x', { name: 'store' })).rejects.toMatchObject({ code: 'invalid_request' });
  });
});

describe('swapLink', () => {
  it('never leaves a moment without a link', async () => {
    await using scratch = await scratchFolder();
    const link = join(scratch.path, 'link');
    await swapLink(link, 'a');
    let swapping = true;
    const swaps = (async () => {
      for (let i = 0; i < 50; i += 1) await swapLink(link, i % 2 === 0 ? 'b' : 'a');
      swapping = false;
    })();
    while (swapping) expect(['a', 'b']).toContain(await readlink(link));
    await swaps;
    expect(await readdir(scratch.path)).toEqual(['link']);
  });
});
