import { execFile } from 'node:child_process';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const PAGE_BYTES = 4096;
/** Memory is read and written in blocks: many small writes cost more than some bytes too many. */
const BLOCK_BYTES = 64 * 1024;
const WINDOW_BYTES = 32 * 1024 * 1024;
const PAGEMAP_ENTRY_BYTES = 8;

/** Bits 56..63 of an entry of /proc/{pid}/pagemap (Documentation/admin-guide/mm/pagemap.rst). */
const PAGEMAP_TOP_BYTE = 7;
const TOP_PRESENT = 1 << 7;
const TOP_SWAPPED = 1 << 6;
const TOP_FILE_OR_SHARED = 1 << 5;

/** Where a guest's memory lies in its hypervisor's process: one range, in the order of the memory file. */
export interface GuestMemory {
  readonly pid: number;
  /** Address in the process, a multiple of the page size. */
  readonly address: number;
  readonly sizeBytes: number;
}

/**
 * Writes the guest's memory to a new, sparse file. The guest must stand still.
 *
 * Only what the guest has written since its start is read: over a copy (a reflink, where the file system has them) of
 * the file that the memory is mapped from, or over zeroes where it is anonymous.
 *
 * @throws Error with code EACCES or EPERM where the kernel forbids reading another process (needs CAP_SYS_PTRACE and
 * CAP_SYS_ADMIN), ENOSPC where the disk is full; the signal's reason.
 */
export async function saveGuestMemory(memory: GuestMemory, path: string, signal: AbortSignal): Promise<void> {
  const base = await mappedFile(memory);
  if (base !== undefined) await copySparse(base, path, signal);
  await using file = await open(path, base === undefined ? 'wx' : 'r+');
  await file.truncate(memory.sizeBytes);
  await using source = await open(`/proc/${memory.pid}/mem`, 'r');
  await using pagemap = await open(`/proc/${memory.pid}/pagemap`, 'r');
  const buffer = Buffer.allocUnsafe(WINDOW_BYTES);
  for (let start = 0; start < memory.sizeBytes; start += WINDOW_BYTES) {
    const windowBytes = Math.min(WINDOW_BYTES, memory.sizeBytes - start);
    for (const run of await privateRuns(pagemap, memory.address + start, windowBytes)) {
      signal.throwIfAborted();
      const data = buffer.subarray(0, run.length);
      await readFully(source, data, memory.address + start + run.offset);
      // Zeroes are written only over something else, so that memory which the guest never filled stays a hole.
      for (const part of nonZeroRuns(data)) {
        await writeFully(file, data.subarray(part.offset, part.offset + part.length), start + run.offset + part.offset);
      }
      if (base === undefined) continue;
      for (const part of joinBlocks(data.length, (block) => isZero(blockOf(data, block)))) {
        await clear(file, start + run.offset + part.offset, part.length);
      }
    }
  }
}

interface Run {
  /** Bytes from the start of the window. */
  readonly offset: number;
  readonly length: number;
}

/** The file that is mapped at the memory's address, by a path that works though it may be deleted. */
async function mappedFile(memory: GuestMemory): Promise<string | undefined> {
  for (const line of (await readFile(`/proc/${memory.pid}/maps`, 'latin1')).split('\n')) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ (\d+)/.exec(line);
    if (!match) continue;
    const [, from = '', to = '', fileOffset = '', inode] = match;
    const start = Number.parseInt(from, 16);
    const end = Number.parseInt(to, 16);
    if (start > memory.address || end <= memory.address) continue;
    if (inode === '0') return undefined;
    if (start !== memory.address || end < start + memory.sizeBytes || Number.parseInt(fileOffset, 16) !== 0) {
      throw new Error(`The guest's memory is mapped in pieces: ${line}`);
    }
    return `/proc/${memory.pid}/map_files/${from}-${to}`;
  }
  throw new Error(`Process ${memory.pid} has nothing mapped at 0x${memory.address.toString(16)}`);
}

/** Copies a file with its holes; where the file system can, the copy shares the blocks of the original. */
export async function copySparse(from: string, to: string, signal: AbortSignal): Promise<void> {
  await promisify(execFile)('cp', ['--reflink=auto', '--sparse=auto', '--', from, to], { signal });
}

/** Ranges of whole blocks that hold a page which belongs to this process alone. */
async function privateRuns(pagemap: FileHandle, address: number, length: number): Promise<Run[]> {
  const entries = Buffer.allocUnsafe((length / PAGE_BYTES) * PAGEMAP_ENTRY_BYTES);
  await readFully(pagemap, entries, (address / PAGE_BYTES) * PAGEMAP_ENTRY_BYTES);
  const blockEntryBytes = (BLOCK_BYTES / PAGE_BYTES) * PAGEMAP_ENTRY_BYTES;
  return joinBlocks(length, (block) => {
    const end = Math.min((block + 1) * blockEntryBytes, entries.length);
    for (let at = block * blockEntryBytes + PAGEMAP_TOP_BYTE; at < end; at += PAGEMAP_ENTRY_BYTES) {
      const top = entries[at] ?? 0;
      if ((top & (TOP_PRESENT | TOP_SWAPPED)) !== 0 && (top & TOP_FILE_OR_SHARED) === 0) return true;
    }
    return false;
  });
}

const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES);

/** The parts that are worth writing to a file of holes: neighbouring blocks that are not all zero. */
export function nonZeroRuns(data: Buffer): Run[] {
  return joinBlocks(data.length, (block) => !isZero(blockOf(data, block)));
}

function blockOf(data: Buffer, block: number): Buffer {
  return data.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
}

function isZero(block: Buffer): boolean {
  return block.equals(ZERO_BLOCK.subarray(0, block.length));
}

/** Writes zeroes where the file holds something else. */
async function clear(file: FileHandle, position: number, length: number): Promise<void> {
  const block = Buffer.allocUnsafe(BLOCK_BYTES);
  for (let done = 0; done < length; done += BLOCK_BYTES) {
    const present = block.subarray(0, Math.min(BLOCK_BYTES, length - done));
    await readFully(file, present, position + done);
    if (!isZero(present)) await writeFully(file, ZERO_BLOCK.subarray(0, present.length), position + done);
  }
}

/** Neighbouring blocks that `wanted` chooses, as one range each. */
function joinBlocks(length: number, wanted: (block: number) => boolean): Run[] {
  const runs: { offset: number; length: number }[] = [];
  for (let block = 0; block * BLOCK_BYTES < length; block++) {
    if (!wanted(block)) continue;
    const offset = block * BLOCK_BYTES;
    const blockLength = Math.min(BLOCK_BYTES, length - offset);
    const last = runs.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += blockLength;
    else runs.push({ offset, length: blockLength });
  }
  return runs;
}

async function readFully(file: FileHandle, target: Buffer, position: number): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const { bytesRead } = await file.read(target, done, target.length - done, position + done);
    if (bytesRead === 0) throw new Error('The hypervisor ended while its memory was read');
    done += bytesRead;
  }
}

async function writeFully(file: FileHandle, data: Buffer, position: number): Promise<void> {
  for (let done = 0; done < data.length; ) {
    done += (await file.write(data, done, data.length - done, position + done)).bytesWritten;
  }
}
