import { describe, expect, it } from 'vitest';
import { loadOrder, readModuleInfo } from './kernel-modules.ts';

/** The least ELF64 file with a .modinfo section. */
function moduleFile(info: string): Buffer {
  const names = Buffer.from('\0.modinfo\0.shstrtab\0');
  const content = Buffer.from(info);
  const header = Buffer.alloc(64);
  header.write('\x7fELF\x02\x01\x01', 'latin1');
  const tableAt = 64 + content.length + names.length;
  header.writeBigUInt64LE(BigInt(tableAt), 0x28);
  header.writeUInt16LE(64, 0x3a);
  header.writeUInt16LE(3, 0x3c);
  header.writeUInt16LE(2, 0x3e);
  const section = (nameAt: number, offset: number, size: number) => {
    const entry = Buffer.alloc(64);
    entry.writeUInt32LE(nameAt, 0);
    entry.writeBigUInt64LE(BigInt(offset), 0x18);
    entry.writeBigUInt64LE(BigInt(size), 0x20);
    return entry;
  };
  const table = [Buffer.alloc(64), section(1, 64, content.length), section(10, 64 + content.length, names.length)];
  return Buffer.concat([header, content, names, ...table]);
}

describe('readModuleInfo', () => {
  it('reads name and dependencies', () => {
    const file = moduleFile('license=GPL\0depends=virtio,virtio_ring\0name=virtio_mmio\0');
    expect(readModuleInfo(file)).toEqual({ name: 'virtio_mmio', depends: ['virtio', 'virtio_ring'] });
    expect(readModuleInfo(moduleFile('depends=\0name=failover\0')).depends).toEqual([]);
  });

  it('refuses what is no module', () => {
    expect(() => readModuleInfo(Buffer.alloc(200))).toThrow(/ELF64/);
    expect(() => readModuleInfo(moduleFile('license=GPL\0'))).toThrow(/name/);
  });
});

describe('loadOrder', () => {
  const known = new Map(
    Object.entries({
      virtio_net: ['virtio', 'net_failover'],
      net_failover: ['failover'],
      failover: [],
      virtio: ['virtio_ring'],
      virtio_ring: [],
    }).map(([name, depends]) => [name, { name, depends }]),
  );
  const find = async (name: string) => known.get(name);

  it('puts each module after what it needs, once, and leaves out what is built in', async () => {
    const order = await loadOrder(['virtio_net', 'ext4', 'virtio'], find);
    expect(order.map((module) => module.name)).toEqual([
      'virtio_ring',
      'virtio',
      'failover',
      'net_failover',
      'virtio_net',
    ]);
  });
});
