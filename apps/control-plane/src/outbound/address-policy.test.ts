import { describe, expect, it } from 'vitest';
import { blockListOf, isIn, isPublicAddress } from './address-policy.ts';

describe('isPublicAddress', () => {
  it.each([
    ...['0.0.0.0', '0.1.2.3', '10.0.0.1', '100.64.0.1', '100.127.255.255', '127.0.0.1', '127.255.255.254'],
    ...['169.254.169.254', '172.16.0.1', '172.31.255.255', '192.0.0.8', '192.0.2.1', '192.168.1.1', '198.18.0.1'],
    ...[
      '198.19.255.255',
      '198.51.100.7',
      '203.0.113.9',
      '224.0.0.1',
      '239.255.255.250',
      '240.0.0.1',
      '255.255.255.255',
    ],
    ...['::', '::1', '::7f00:1', '::ffff:127.0.0.1', '::ffff:a00:1', '::FFFF:169.254.169.254', '64:ff9b::10.0.0.1'],
    ...['64:ff9b::7f00:1', '64:ff9b:1::1', '100::1', '2001::1', '2001:db8::1', '2002:7f00:1::', '2002:a00:1::1'],
    ...['fc00::1', 'fd12:3456::1', 'fe80::1', 'fe80::1%eth0', 'fec0::1', 'ff02::1', '3fff::1', '5f00::1', '4000::1'],
    ...['', 'localhost', '127.1', '0x7f000001', '1.2.3'],
  ])('refuses %s', (address) => {
    expect(isPublicAddress(address)).toBe(false);
  });

  it.each([
    ...[
      '1.1.1.1',
      '8.8.8.8',
      '100.63.255.255',
      '100.128.0.1',
      '172.15.0.1',
      '172.32.0.1',
      '192.0.1.1',
      '223.255.255.1',
    ],
    ...['2606:4700:4700::1111', '2a00:1450:4001:80b::200e', '::ffff:8.8.8.8', '64:ff9b::808:808'],
  ])('takes %s', (address) => {
    expect(isPublicAddress(address)).toBe(true);
  });
});

describe('blockListOf', () => {
  it('takes networks and single addresses of both versions', () => {
    const list = blockListOf(['10.1.0.0/16', '192.168.7.9', 'fd00::/8']);
    expect(['10.1.2.3', '192.168.7.9', 'fd99::1'].map((address) => isIn(list, address))).toEqual([true, true, true]);
    expect(['10.2.0.1', '192.168.7.8', 'fe80::1'].map((address) => isIn(list, address))).toEqual([false, false, false]);
  });

  it.each(['10.0.0.0/33', 'fd00::/129', '10.0.0.0/', '10.0.0.0/8/8', 'example.com', '10.0.0.0/-1'])(
    'refuses %s',
    (text) => {
      expect(() => blockListOf([text])).toThrow(text);
    },
  );
});
