import { readFile, writeFile } from 'node:fs/promises';
import { runCommand } from '../processes/run-command.ts';

/**
 * Where no guest may open a connection to: everything that is not public (IANA's special-purpose registry, RFC 6890).
 * Cloud metadata services are in 169.254.0.0/16, other slots in 10.0.0.0/8.
 */
export const BLOCKED_DESTINATIONS = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/4',
  '240.0.0.0/4',
] as const;

/** Chosen for slots' interface pairs; leaves the machine only masqueraded. */
const SLOT_NETWORK = '10.12.0.0/16';

/**
 * The machine's side of all slots, in a table of its own: no slot speaks with the host or another slot, guests reach
 * the internet by NAT, and nobody outside opens a connection to a guest. It names interfaces by prefix, so it is the
 * same whatever slots there are, and stays in place when the agent ends.
 */
const RULES = `
table inet wrenn {}
delete table inet wrenn
table inet wrenn {
  chain input {
    type filter hook input priority filter - 10;
    iifname "wrenn-veth-*" meta nfproto ipv4 ct state established,related accept
    iifname "wrenn-veth-*" drop
  }
  chain forward {
    type filter hook forward priority filter - 10;
    iifname "wrenn-veth-*" meta nfproto ipv6 drop
    oifname "wrenn-veth-*" meta nfproto ipv6 drop
    iifname "wrenn-veth-*" oifname "wrenn-veth-*" drop
    oifname "wrenn-veth-*" ct state established,related accept
    oifname "wrenn-veth-*" drop
    iifname "wrenn-veth-*" ip daddr { ${BLOCKED_DESTINATIONS.join(', ')} } ct state new drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr ${SLOT_NETWORK} oifname != "wrenn-veth-*" masquerade
  }
}
`;

const FORWARDING = '/proc/sys/net/ipv4/ip_forward';

/** Puts the machine's own rules in place, replacing an earlier version in one step, and lets it forward packets. */
export async function applyHostRules(signal?: AbortSignal): Promise<void> {
  await runCommand('nft', ['-f', '-'], { input: RULES, ...(signal ? { signal } : {}) });
  if ((await readFile(FORWARDING, 'utf8')).trim() !== '1') await writeFile(FORWARDING, '1');
}
