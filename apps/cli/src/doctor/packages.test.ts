import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { describePackages, parsePackageList } from './packages.ts';

describe('parsePackageList', () => {
  const text = '# a remark\n\nqemu-x [amd64]  # runs VMs\nqemu-a [arm64 riscv64]\n  cpio# packs\n';

  it('takes the packages of one architecture', () => {
    expect(parsePackageList(text, 'amd64')).toEqual([
      { name: 'qemu-x', purpose: 'runs VMs' },
      { name: 'cpio', purpose: 'packs' },
    ]);
    expect(parsePackageList(text, 'riscv64').map(({ name }) => name)).toEqual(['qemu-a', 'cpio']);
  });

  it('understands every line of the list that the set-up script reads', () => {
    const list = readFileSync(new URL('../../../../deploy/packages-debian.txt', import.meta.url), 'utf8');
    const entries = list.split('\n').filter((line) => line.trim() && !line.startsWith('#'));
    const understood = new Set(
      ['amd64', 'arm64'].flatMap((arch) => parsePackageList(list, arch)).map(({ name }) => name),
    );
    expect(understood.size).toBe(entries.length);
  });
});

describe('describePackages', () => {
  const needed = [
    { name: 'cpio', purpose: 'packs' },
    { name: 'nftables', purpose: 'firewall' },
    { name: 'tmux', purpose: '' },
  ];

  it('fails for each package that is missing or only half there, with one command that mends all', () => {
    const findings = describePackages(needed, 'installed cpio 2.13\nconfig-files nftables 1.0\n');
    expect(findings.map(({ name, status }) => [name, status])).toEqual([
      ['packages', 'ok'],
      ['nftables', 'fail'],
      ['tmux', 'fail'],
    ]);
    expect(findings[1]?.remedy).toMatch(/apt-get install .* nftables tmux$/);
  });

  it('is one line when all are there', () => {
    const findings = describePackages(needed, 'installed cpio 1\ninstalled nftables 1\ninstalled tmux 3\n');
    expect(findings).toEqual([{ name: 'packages', status: 'ok', detail: '3 of 3 Debian packages are installed' }]);
  });
});
