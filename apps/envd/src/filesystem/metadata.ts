import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf } from '../errors.ts';
import { getXattr, listXattrs, removeXattr, setXattr } from '../native/libc.ts';

/** E2B keeps what clients attach to a file in its extended attributes below this name. */
const XATTR_PREFIX = 'user.e2b.';
const HEADER_PREFIX = 'x-metadata-';
/** The kernel's limit for a name is 255 bytes. */
const MAX_KEY_BYTES = 255 - XATTR_PREFIX.length;
/** E2B's limit for all names and values of a file, which is what ext4 has room for in an inode's extra block. */
const MAX_TOTAL_BYTES = 4096;
const PRINTABLE_ASCII = /^[\x20-\x7e]*$/;

/** What clients attached to a file. Empty where the file system keeps none; a link's target is what counts. */
export function readMetadata(path: string): Record<string, string> {
  const metadata: Record<string, string> = {};
  try {
    for (const name of listXattrs(path)) {
      if (!name.startsWith(XATTR_PREFIX)) continue;
      const value = getXattr(path, name);
      const text = value.toString('utf8');
      // Set by a program in the guest, not by a client; JSON and protobuf could not carry it.
      if (!Buffer.from(text, 'utf8').equals(value)) continue;
      metadata[name.slice(XATTR_PREFIX.length)] = text;
    }
  } catch (error) {
    // Attributes tell nothing about the entry itself, which may be a broken link, be gone, or lie on /proc.
    if (!UNREADABLE.has(errnoOf(error) ?? '')) throw error;
  }
  return metadata;
}

const UNREADABLE = new Set([
  'ENOENT',
  'ENOTSUP',
  'EOPNOTSUPP',
  'EACCES',
  'EPERM',
  'ENODATA',
  'ELOOP',
  'ERANGE',
  'ENOTDIR',
  'EIO',
]);

/** Replaces what is attached to an open file. False where the file system keeps no attributes. */
export function replaceMetadata(fd: number, metadata: Readonly<Record<string, string>>): boolean {
  try {
    for (const name of listXattrs(fd)) {
      const key = name.slice(XATTR_PREFIX.length);
      if (name.startsWith(XATTR_PREFIX) && !Object.hasOwn(metadata, key)) removeXattr(fd, name);
    }
    for (const [key, value] of Object.entries(metadata)) setXattr(fd, XATTR_PREFIX + key, Buffer.from(value));
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOTSUP' || errnoOf(error) === 'EOPNOTSUPP') return false;
    throw error;
  }
}

/**
 * The metadata that a request's `X-Metadata-*` headers carry. Fails with `invalid_request` on what cannot be kept.
 *
 * @param headers every value of each header, names in lower case
 */
export function metadataFromHeaders(headers: NodeJS.Dict<string[]>): Record<string, string> {
  const metadata: Record<string, string> = {};
  let total = 0;
  for (const [name, values] of Object.entries(headers)) {
    const value = values?.[0];
    if (!name.startsWith(HEADER_PREFIX) || value === undefined) continue;
    const key = name.slice(HEADER_PREFIX.length);
    if (key === '') continue;
    if (key.length > MAX_KEY_BYTES) throw invalid(`the key ${key.slice(0, 32)}… has more than ${MAX_KEY_BYTES} bytes`);
    if (!PRINTABLE_ASCII.test(key) || !PRINTABLE_ASCII.test(value)) {
      throw invalid(`${key} holds characters other than printable ASCII`);
    }
    metadata[key] = value;
    total += XATTR_PREFIX.length + key.length + value.length;
  }
  if (total > MAX_TOTAL_BYTES) throw invalid(`it has ${total} bytes; ${MAX_TOTAL_BYTES} are the most`);
  return metadata;
}

function invalid(problem: string): WrennError {
  return new WrennError('invalid_request', { problem: `metadata cannot be kept: ${problem}` });
}
