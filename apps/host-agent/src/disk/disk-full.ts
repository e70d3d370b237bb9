import { WrennError } from '@wrenn/protocol/errors';

/**
 * The catalogue's error when a failure, or what caused it, is a full file system of the host; undefined for others.
 * Programs such as qemu-img and QEMU say it only in words.
 */
export function asHostDiskFull(error: unknown): WrennError | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof WrennError && cause.code === 'host_disk_full') return cause;
    // Its own disk was full, where it is a folder.
    if (cause instanceof WrennError && cause.code === 'object_store_failed') return undefined;
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOSPC' || code === 'EDQUOT' || /no space left on device|disk quota exceeded/i.test(cause.message)) {
      return new WrennError('host_disk_full', {}, { cause: error });
    }
    if (cause instanceof SuppressedError) return asHostDiskFull(cause.suppressed) ?? asHostDiskFull(cause.error);
    if (cause instanceof AggregateError) {
      const found = cause.errors.map(asHostDiskFull).find((inner) => inner !== undefined);
      if (found) return found;
    }
  }
  return undefined;
}
