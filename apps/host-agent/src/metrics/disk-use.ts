import { stat } from 'node:fs/promises';
import { diskFolder } from '../disk/disk-chain.ts';
import type { VmRecord } from '../journal/vm-record.ts';

/** `st_blocks` counts in these whatever the file system's own blocks are. */
const BLOCK_BYTES = 512;

/** Bytes on the host's disk that a VM alone holds: its overlay, and what it wrote before its last sleeps. */
export async function ownDiskBytes(
  vmDir: string,
  { layers, sharedLayers }: Pick<VmRecord, 'layers' | 'sharedLayers'>,
): Promise<number> {
  const folder = diskFolder(vmDir);
  const paths = [folder.own, ...layers.slice(sharedLayers).map(folder.layer)];
  const sizes = await Promise.all(paths.map(allocatedBytes));
  return sizes.reduce((sum, bytes) => sum + bytes, 0);
}

async function allocatedBytes(path: string): Promise<number> {
  try {
    return (await stat(path)).blocks * BLOCK_BYTES;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
    throw error;
  }
}
