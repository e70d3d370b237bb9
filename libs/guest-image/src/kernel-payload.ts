import { WrennError } from '@wrenn/protocol/errors';
import { COMPRESSIONS, type Compression, startsWith } from './compression.ts';

const ELF_MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);

/**
 * The bootable kernel inside a distribution's `vmlinuz`: an ELF file on x86, the plain Image on arm64.
 *
 * @throws WrennError image_build_failed when there is no payload of a known compression.
 */
export async function extractKernel(vmlinuz: Buffer, signal: AbortSignal): Promise<Buffer> {
  if (isKernel(vmlinuz)) return vmlinuz;
  const found: string[] = [];
  const problems: unknown[] = [];
  for (const { payload, compression } of payloads(vmlinuz)) {
    found.push(compression.name);
    try {
      const kernel = await compression.decompress(payload, signal);
      if (isKernel(kernel)) return kernel;
    } catch (error) {
      // A magic number can occur by chance inside other data; a missing tool or an abort is a real answer.
      if (error instanceof WrennError || signal.aborted) throw error;
      problems.push(error);
    }
  }
  const seen = found.length > 0 ? `what looks like ${[...new Set(found)].join(', ')} in it does not unpack to one` : '';
  throw new WrennError(
    'image_build_failed',
    { step: 'kernel', problem: `the kernel package holds no ELF kernel${seen && `; ${seen}`}` },
    { cause: new AggregateError(problems) },
  );
}

/** Where compressed data may begin: first what the boot header says, then every magic number in the file. */
function* payloads(vmlinuz: Buffer): Generator<{ payload: Buffer; compression: Compression }> {
  const stated = statedPayload(vmlinuz);
  if (stated) {
    for (const compression of COMPRESSIONS) {
      if (startsWith(stated, compression.magic)) yield { payload: stated, compression };
    }
  }
  for (const compression of COMPRESSIONS) {
    for (let at = vmlinuz.indexOf(compression.magic); at >= 0; at = vmlinuz.indexOf(compression.magic, at + 1)) {
      yield { payload: vmlinuz.subarray(at), compression };
    }
  }
}

/**
 * The payload by the x86 boot protocol (kernel documentation, arch/x86/boot, protocol 2.08 and later). Its last four
 * bytes are the unpacked size, which no decompressor wants to see.
 */
function statedPayload(vmlinuz: Buffer): Buffer | undefined {
  if (vmlinuz.length < 0x250 || vmlinuz.toString('latin1', 0x202, 0x206) !== 'HdrS') return undefined;
  if (vmlinuz.readUInt16LE(0x206) < 0x0208) return undefined;
  const setupSectors = vmlinuz.readUInt8(0x1f1) || 4;
  const start = (setupSectors + 1) * 512 + vmlinuz.readUInt32LE(0x248);
  const end = start + vmlinuz.readUInt32LE(0x24c);
  return end <= vmlinuz.length && end - start > 4 ? vmlinuz.subarray(start, end - 4) : undefined;
}

function isKernel(bytes: Buffer): boolean {
  return startsWith(bytes, ELF_MAGIC) || bytes.toString('latin1', 56, 60) === 'ARM\x64';
}
