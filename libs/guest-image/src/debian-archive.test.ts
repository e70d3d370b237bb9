import { describe, expect, it } from 'vitest';
import { debianSources, pickTransportOptions } from './debian-archive.ts';

describe('debianSources', () => {
  it("takes the release's own archives and leaves third parties and other parts out", () => {
    const targets = [
      'http://mirror.test/debian/|bookworm|bookworm|Debian|main',
      'http://mirror.test/debian/|bookworm|bookworm|Debian|contrib',
      'http://mirror.test/debian/|bookworm-updates|bookworm-updates|Debian|main',
      'http://mirror.test/debian/|bookworm-updates|bookworm-updates|Debian|main',
      'http://mirror.test/debian-security/|bookworm-security|bookworm-security|Debian|main',
      'http://mirror.test/debian/|trixie|trixie|Debian|main',
      'https://vendor.test/apt/|bookworm|bookworm|Vendor|main',
      '',
    ].join('\n');
    expect(debianSources(targets, 'bookworm')).toEqual([
      'deb http://mirror.test/debian/ bookworm main',
      'deb http://mirror.test/debian/ bookworm-updates main',
      'deb http://mirror.test/debian-security/ bookworm-security main',
    ]);
  });
});

describe('pickTransportOptions', () => {
  it('keeps how archives are reached and nothing else', () => {
    const dump = [
      'APT::Architecture "amd64";',
      'Acquire "";',
      'Acquire::http::Proxy "http://proxy.test:3128";',
      'Acquire::https::CAInfo "/etc/ssl/own.pem";',
      'Acquire::Check-Valid-Until "false";',
      'Acquire::Languages "none";',
      'DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";',
    ].join('\n');
    expect(pickTransportOptions(dump)).toBe(
      [
        'Acquire::http::Proxy "http://proxy.test:3128";\n',
        'Acquire::https::CAInfo "/etc/ssl/own.pem";\n',
        'Acquire::Check-Valid-Until "false";\n',
      ].join(''),
    );
  });
});
