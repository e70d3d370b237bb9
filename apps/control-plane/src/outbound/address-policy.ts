import { BlockList, isIP } from 'node:net';

/** Networks of IANA's registries of special-purpose IPv4 addresses, multicast and reserved ones. */
const SPECIAL_V4 = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.31.196.0/24',
  '192.52.193.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '192.175.48.0/24',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/3',
];

/** Of IPv6 only global unicast is public, and of that not these: protocol assignments, documentation, 6to4, SRv6. */
const GLOBAL_V6 = '2000::/3';
const SPECIAL_V6 = ['2001::/23', '2001:db8::/32', '2002::/16', '2620:4f:8000::/48', '3fff::/20'];

const specialV4 = blockListOf(SPECIAL_V4);
const globalV6 = blockListOf([GLOBAL_V6]);
const specialV6 = blockListOf(SPECIAL_V6);

/**
 * Networks, such as `10.0.0.0/8` or `fd00::/8`, or single addresses.
 *
 * @throws Error that names what is neither
 */
export function blockListOf(networks: readonly string[]): BlockList {
  const list = new BlockList();
  for (const network of networks) {
    const [address = '', bits, ...rest] = network.split('/');
    const version = isIP(address);
    const widest = version === 4 ? 32 : 128;
    const prefix = bits === undefined ? widest : /^\d{1,3}$/.test(bits) ? Number(bits) : Number.NaN;
    if (version === 0 || rest.length > 0 || !(prefix <= widest)) {
      throw new Error(`${network} is no network such as 10.0.0.0/8`);
    }
    list.addSubnet(address, prefix, version === 4 ? 'ipv4' : 'ipv6');
  }
  return list;
}

/** Whether `blockListOf` takes them. */
export function areNetworks(networks: readonly string[]): boolean {
  try {
    blockListOf(networks);
    return true;
  } catch {
    return false;
  }
}

export function isIn(list: BlockList, address: string): boolean {
  const version = isIP(address);
  return version !== 0 && list.check(address, version === 4 ? 'ipv4' : 'ipv6');
}

/** Whether anybody on the internet could own that address. An IPv4 address within an IPv6 one is judged as itself. */
export function isPublicAddress(address: string): boolean {
  const inner = embeddedV4(address);
  if (inner !== undefined) return isPublicAddress(inner);
  switch (isIP(address)) {
    case 4:
      return !isIn(specialV4, address);
    case 6:
      return isIn(globalV6, address) && !isIn(specialV6, address);
    default:
      return false;
  }
}

/** The IPv4 address that is reached by a mapped one (`::ffff:0:0/96`) or through NAT64 (`64:ff9b::/96`). */
export function embeddedV4(address: string): string | undefined {
  if (isIP(address) !== 6) return undefined;
  const groups = groupsOf(address);
  const head = groups.slice(0, 6).join(':');
  if (head !== '0:0:0:0:0:ffff' && head !== '64:ff9b:0:0:0:0') return undefined;
  const [high = '0', low = '0'] = groups.slice(6);
  const bits = [Number.parseInt(high, 16), Number.parseInt(low, 16)];
  return bits.flatMap((pair) => [pair >> 8, pair & 0xff]).join('.');
}

/** The eight groups of an IPv6 address, in hex without zeros before them. */
function groupsOf(address: string): string[] {
  // URL writes every spelling in its one short form.
  const short = new URL(`http://[${address.split('%')[0]}]`).hostname.slice(1, -1);
  const [before = '', after] = short.split('::');
  const left = before === '' ? [] : before.split(':');
  const right = after ? after.split(':') : [];
  if (after === undefined) return left;
  return [...left, ...Array.from({ length: 8 - left.length - right.length }, () => '0'), ...right];
}
