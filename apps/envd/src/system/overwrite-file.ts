import { closeSync, constants, ftruncateSync, openSync, writeSync } from 'node:fs';

/**
 * Writes over what is there. A rename, or a truncation before the write, would make ext4 bring the file to the disk at
 * once, which is most of the time of an /init under emulation.
 */
export function overwriteFile(path: string, content: string): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o644);
  try {
    ftruncateSync(fd, writeSync(fd, content));
  } finally {
    closeSync(fd);
  }
}
