import { randomBytes } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { runCommand } from './command.ts';
import { extractKernel } from './kernel-payload.ts';

const signal = new AbortController().signal;
const KERNEL = Buffer.concat([
  Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0]),
  randomBytes(100_000),
  Buffer.alloc(50_000),
]);

const pack = (tool: string, ...args: string[]) =>
  runCommand(tool, [...args, '--stdout'], { input: KERNEL, timeoutMs: 10_000, signal });
const PACKERS: Readonly<Record<string, () => Promise<Buffer>>> = {
  gzip: async () => gzipSync(KERNEL),
  zstd: async () => zstdCompressSync(KERNEL),
  xz: () => pack('xz', '--check=crc32', '--x86', '--lzma2=preset=1'),
  lz4: () => pack('lz4', '-l'),
};

/** A file as the x86 boot protocol describes it, with the unpacked size behind the payload. */
function bootable(payload: Buffer): Buffer {
  const setup = Buffer.alloc(5 * 512);
  setup.writeUInt8(4, 0x1f1);
  setup.write('HdrS', 0x202);
  setup.writeUInt16LE(0x20f, 0x206);
  const stub = randomBytes(1000);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(KERNEL.length);
  setup.writeUInt32LE(stub.length, 0x248);
  setup.writeUInt32LE(payload.length + 4, 0x24c);
  return Buffer.concat([setup, stub, payload, size, randomBytes(512)]);
}

describe('extractKernel', () => {
  it.each(Object.keys(PACKERS))('finds a payload of %s by the boot header', async (name) => {
    const payload = await PACKERS[name]?.();
    expect(payload).toBeDefined();
    if (payload) expect((await extractKernel(bootable(payload), signal)).equals(KERNEL)).toBe(true);
  });

  it('finds a payload by its magic number where there is no header, past chance hits', async () => {
    const file = Buffer.concat([
      randomBytes(64),
      Buffer.from([0x1f, 0x8b, 0x08]),
      randomBytes(64),
      zstdCompressSync(KERNEL),
    ]);
    expect((await extractKernel(file, signal)).equals(KERNEL)).toBe(true);
  });

  it('takes an unpacked kernel as it is', async () => {
    expect(await extractKernel(KERNEL, signal)).toBe(KERNEL);
    const image = Buffer.alloc(128);
    image.write('ARM\x64', 56);
    expect(await extractKernel(image, signal)).toBe(image);
  });

  it('says so when the payload is no kernel', async () => {
    const file = bootable(gzipSync(Buffer.from('not a kernel')));
    await expect(extractKernel(file, signal)).rejects.toMatchObject({
      code: 'image_build_failed',
      message: expect.stringMatching(/no ELF kernel.*gzip/),
    });
  });
});
