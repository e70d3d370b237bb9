/** The part of a module's own description that loading it needs. */
export interface ModuleInfo {
  readonly name: string;
  /** Modules that must be loaded before it. */
  readonly depends: readonly string[];
}

/**
 * Reads the `.modinfo` section of a kernel module (ELF64, little-endian): NUL-terminated `key=value` texts.
 *
 * @throws RangeError or Error when the bytes are no such module.
 */
export function readModuleInfo(module: Buffer): ModuleInfo {
  const values = new Map<string, string>();
  for (const line of modinfoSection(module).toString('latin1').split('\0')) {
    const at = line.indexOf('=');
    if (at > 0) values.set(line.slice(0, at), line.slice(at + 1));
  }
  const name = values.get('name');
  if (name === undefined) throw new Error('The kernel module does not say its name');
  return { name, depends: (values.get('depends') ?? '').split(',').filter((other) => other !== '') };
}

function modinfoSection(elf: Buffer): Buffer {
  if (elf.readUInt32BE(0) !== 0x7f454c46 || elf[4] !== 2 || elf[5] !== 1) {
    throw new Error('The kernel module is not a little-endian ELF64 file');
  }
  const tableAt = Number(elf.readBigUInt64LE(0x28));
  const entrySize = elf.readUInt16LE(0x3a);
  const count = elf.readUInt16LE(0x3c);
  const section = (index: number) => {
    const at = tableAt + index * entrySize;
    const offset = Number(elf.readBigUInt64LE(at + 0x18));
    return {
      nameAt: elf.readUInt32LE(at),
      bytes: elf.subarray(offset, offset + Number(elf.readBigUInt64LE(at + 0x20))),
    };
  };
  const names = section(elf.readUInt16LE(0x3e)).bytes;
  for (let index = 0; index < count; index += 1) {
    const { nameAt, bytes } = section(index);
    if (names.toString('latin1', nameAt, names.indexOf(0, nameAt)) === '.modinfo') return bytes;
  }
  throw new Error('The kernel module has no .modinfo section');
}

/**
 * The wanted modules and all that they depend on, each after what it needs. Names that `find` does not know are
 * left out: they are built into the kernel.
 */
export async function loadOrder<Module extends ModuleInfo>(
  wanted: readonly string[],
  find: (name: string) => Promise<Module | undefined>,
): Promise<Module[]> {
  const order: Module[] = [];
  const seen = new Set<string>();
  const visit = async (name: string): Promise<void> => {
    if (seen.has(name)) return;
    seen.add(name);
    const module = await find(name);
    if (!module) return;
    for (const needed of module.depends) await visit(needed);
    order.push(module);
  };
  for (const name of wanted) await visit(name);
  return order;
}
