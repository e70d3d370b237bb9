/** One entry of a cpio archive. Paths have no leading slash; parents come before children. */
export type CpioEntry =
  | { readonly kind: 'directory'; readonly path: string }
  | { readonly kind: 'file'; readonly path: string; readonly executable: boolean; readonly content: Uint8Array }
  | { readonly kind: 'device'; readonly path: string; readonly major: number; readonly minor: number };

/**
 * An archive in the "newc" form, the one that the kernel unpacks as an initramfs (kernel documentation,
 * driver-api/early-userspace/buffer-format). All times and owners are 0, so equal entries give equal bytes.
 */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  let inode = 1;
  for (const entry of entries) {
    parts.push(...writeEntry(entry, inode));
    inode += 1;
  }
  parts.push(header({ inode: 0, mode: 0, links: 1, size: 0, major: 0, minor: 0, name: 'TRAILER!!!' }));
  return Buffer.concat(parts);
}

function writeEntry(entry: CpioEntry, inode: number): Buffer[] {
  const common = { inode, name: entry.path, size: 0, major: 0, minor: 0, links: 1 };
  switch (entry.kind) {
    case 'directory':
      return [header({ ...common, mode: 0o040755, links: 2 })];
    case 'device':
      return [header({ ...common, mode: 0o020600, major: entry.major, minor: entry.minor })];
    case 'file':
      return [
        header({ ...common, mode: entry.executable ? 0o100755 : 0o100644, size: entry.content.length }),
        Buffer.from(entry.content),
        padding(entry.content.length),
      ];
  }
}

interface HeaderFields {
  inode: number;
  mode: number;
  links: number;
  size: number;
  major: number;
  minor: number;
  name: string;
}

function header(fields: HeaderFields): Buffer {
  const name = Buffer.from(`${fields.name}\0`);
  const numbers = [
    fields.inode,
    fields.mode,
    0, // uid
    0, // gid
    fields.links,
    0, // mtime
    fields.size,
    0, // device of the file, major
    0, // and minor
    fields.major,
    fields.minor,
    name.length,
    0, // checksum: only in the "crc" form
  ];
  const text = `070701${numbers.map((n) => n.toString(16).padStart(8, '0')).join('')}`;
  return Buffer.concat([Buffer.from(text), name, padding(text.length + name.length)]);
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}
