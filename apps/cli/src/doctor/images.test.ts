import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { damageOf, visibleDamageOf } from './images.ts';

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-images-'));
  path = join(dir, 'rootfs.ext4');
});
afterEach(() => rmSync(dir, { recursive: true }));

/** As much of an ext4 file system as a look shows. */
function ext4(): Buffer {
  const image = Buffer.alloc(4096);
  image.writeUInt16LE(0xef53, 1024 + 0x38);
  return image;
}

describe('visibleDamageOf', () => {
  it('sees a missing file, a cut one, and one that holds something else', async () => {
    expect(await visibleDamageOf(path, 4096)).toBe(`${path} is missing`);
    writeFileSync(path, ext4().subarray(0, 2048));
    expect(await visibleDamageOf(path, 4096)).toBe(`${path} has 2048 bytes instead of 4096`);
    writeFileSync(path, Buffer.alloc(4096));
    expect(await visibleDamageOf(path, 4096)).toBe(`${path} holds no ext4 file system`);
    writeFileSync(path, ext4());
    expect(await visibleDamageOf(path, 4096)).toBeUndefined();
  });
});

describe('damageOf', () => {
  it('sees one changed byte', async () => {
    const { signal } = new AbortController();
    const image = ext4();
    const sha256 = createHash('sha256').update(image).digest('hex');
    writeFileSync(path, image);
    expect(await damageOf({ path, sha256 }, signal)).toBeUndefined();
    image[4000] = 1;
    writeFileSync(path, image);
    expect(await damageOf({ path, sha256 }, signal)).toBe(`${path} does not have the content that it was built with`);
  });
});
