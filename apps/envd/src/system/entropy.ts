import { closeSync, openSync } from 'node:fs';
import { ioctl } from '../native/libc.ts';

/** linux/random.h: _IOW('R', 0x03, int[2]) and _IO('R', 0x07). */
const RNDADDENTROPY = 0x40085203;
const RNDRESEEDCRNG = 0x5207;
const HEADER_BYTES = 8;

/**
 * Mixes entropy into the kernel's pool, credited in full, and makes its generator start from it at once. Two guests that
 * were one before a fork would otherwise give out the same random numbers. Needs root.
 */
export function addEntropy(entropy: Buffer): void {
  const info = Buffer.alloc(HEADER_BYTES + entropy.length);
  info.writeInt32LE(entropy.length * 8, 0);
  info.writeInt32LE(entropy.length, 4);
  entropy.copy(info, HEADER_BYTES);
  const fd = openSync('/dev/urandom', 'w');
  try {
    ioctl(fd, RNDADDENTROPY, info);
    ioctl(fd, RNDRESEEDCRNG, null);
  } finally {
    closeSync(fd);
  }
}
