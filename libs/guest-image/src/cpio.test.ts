import { describe, expect, it } from 'vitest';
import { type CpioEntry, writeCpio } from './cpio.ts';

const ENTRIES: readonly CpioEntry[] = [
  { kind: 'directory', path: 'dev' },
  { kind: 'device', path: 'dev/console', major: 5, minor: 1 },
  { kind: 'file', path: 'init', content: Buffer.from('#!/bin/sh\n'), executable: true },
  { kind: 'file', path: 'data', content: Buffer.from('12345'), executable: false },
];

/** Reads the archive the way the kernel does: fixed header, name and content each padded to 4 bytes. */
function readCpio(archive: Buffer) {
  const found = [];
  for (let at = 0; ; ) {
    expect(at % 4).toBe(0);
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, uid, gid, mtime, size, nameSize] = [1, 2, 3, 5, 6, 11].map(field);
    const nameAt = at + 110;
    const name = archive.toString('latin1', nameAt, nameAt + (nameSize ?? 0) - 1);
    const contentAt = Math.ceil((nameAt + (nameSize ?? 0)) / 4) * 4;
    if (name === 'TRAILER!!!') return found;
    const content = archive.toString('latin1', contentAt, contentAt + (size ?? 0));
    found.push({ name, mode: mode?.toString(8), owner: [uid, gid], mtime, content, device: [field(9), field(10)] });
    at = Math.ceil((contentAt + (size ?? 0)) / 4) * 4;
  }
}

describe('writeCpio', () => {
  it('writes folders, devices and files that the kernel can unpack', () => {
    const common = { owner: [0, 0], mtime: 0 };
    expect(readCpio(writeCpio(ENTRIES))).toEqual([
      { ...common, name: 'dev', mode: '40755', content: '', device: [0, 0] },
      { ...common, name: 'dev/console', mode: '20600', content: '', device: [5, 1] },
      { ...common, name: 'init', mode: '100755', content: '#!/bin/sh\n', device: [0, 0] },
      { ...common, name: 'data', mode: '100644', content: '12345', device: [0, 0] },
    ]);
  });

  it('gives equal bytes for equal entries', () => {
    expect(writeCpio(ENTRIES).equals(writeCpio(ENTRIES))).toBe(true);
  });
});
