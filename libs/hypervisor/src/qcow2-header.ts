import { open } from 'node:fs/promises';

/** docs/interop/qcow2.txt of QEMU: big-endian fields at the start of the file. */
const MAGIC = 0x514649fb;
const VERSION_OFFSET = 4;
const INCOMPATIBLE_FEATURES_OFFSET = 72;
const HEADER_BYTES = 80;
const EXTERNAL_DATA_FILE = 1n << 2n;

/**
 * Refuses an overlay that names another file as the place of its data. The hypervisor opens disks as root, and the
 * overlay was written by the hypervisor of an earlier run, which its guest may have taken over.
 *
 * @throws Error where the file is no qcow2 image, or such a one.
 */
export async function checkQcow2Header(path: string): Promise<void> {
  await using file = await open(path, 'r');
  const header = Buffer.alloc(HEADER_BYTES);
  const { bytesRead } = await file.read(header, 0, HEADER_BYTES, 0);
  if (bytesRead < HEADER_BYTES || header.readUInt32BE(0) !== MAGIC) throw new Error(`${path} is no qcow2 image`);
  if (header.readUInt32BE(VERSION_OFFSET) < 3) return;
  if ((header.readBigUInt64BE(INCOMPATIBLE_FEATURES_OFFSET) & EXTERNAL_DATA_FILE) !== 0n) {
    throw new Error(`${path} keeps its data in another file, which disks of VMs never do`);
  }
}
