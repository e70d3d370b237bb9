import { promisify } from 'node:util';
import { gunzip, constants as zlib, zstdDecompress } from 'node:zlib';
import { runCommand } from './command.ts';

const inflate = promisify(gunzip);
const unzstd = promisify(zstdDecompress);

export interface Compression {
  readonly name: 'gzip' | 'zstd' | 'xz' | 'lz4';
  /** The bytes that compressed data begins with. */
  readonly magic: Buffer;
  /** Unpacks one stream. What follows the stream is ignored where the form can tell its end. */
  decompress(data: Buffer, signal: AbortSignal): Promise<Buffer>;
}

/** The forms in which distributions compress kernels and modules. lz4 is the kernel's "legacy" frame. */
export const COMPRESSIONS: readonly Compression[] = [
  {
    name: 'gzip',
    magic: Buffer.from([0x1f, 0x8b, 0x08]),
    decompress: (data) => inflate(data, { finishFlush: zlib.Z_SYNC_FLUSH }),
  },
  { name: 'zstd', magic: Buffer.from([0x28, 0xb5, 0x2f, 0xfd]), decompress: (data) => unzstd(data) },
  { name: 'xz', magic: Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]), decompress: withTool('xz') },
  { name: 'lz4', magic: Buffer.from([0x02, 0x21, 0x4c, 0x18]), decompress: withTool('lz4') },
];

export function startsWith(bytes: Buffer, prefix: Buffer): boolean {
  return bytes.subarray(0, prefix.length).equals(prefix);
}

/** Unpacks data whose first bytes tell its compression. */
export async function decompress(data: Buffer, signal: AbortSignal): Promise<Buffer> {
  const compression = COMPRESSIONS.find(({ magic }) => startsWith(data, magic));
  if (!compression) throw new Error(`Unknown compression: the data begins with ${data.toString('hex', 0, 6)}`);
  return compression.decompress(data, signal);
}

function withTool(tool: 'xz' | 'lz4'): Compression['decompress'] {
  return (data, signal) => runCommand(tool, ['--decompress', '--stdout'], { input: data, timeoutMs: 60_000, signal });
}
