import { access } from 'node:fs/promises';
import { runCommand } from '../processes/run-command.ts';
import { BLOCKED_DESTINATIONS } from './host-rules.ts';
import { GUEST, type Slot } from './slot.ts';

/** Makes the slot's namespace, its pair of interfaces, its TAP and its rules. The caller holds the slot's claim. */
export async function makeNamespace(slot: Slot, signal?: AbortSignal): Promise<void> {
  // One shell for all of it: each further process costs more than the kernel's own work.
  await runCommand('sh', ['-e'], { input: script(slot), ...(signal ? { signal } : {}) });
}

/**
 * Removes what `makeNamespace` made, or the half of it that is there. With it go the connection tracking entries and
 * neighbours of the VM that used it, so a slot is never reused, only made again.
 *
 * @throws Error when something of it is still there afterwards.
 */
export async function removeNamespace(slot: Slot): Promise<void> {
  // Deleting the pair first, because a namespace that goes takes its interfaces along only some time later.
  const input = `link del ${slot.veth}\nnetns del ${slot.namespace}\n`;
  const failure = await runCommand('ip', ['-force', '-batch', '-'], { input }).catch((error: unknown) => error);
  for (const path of [slot.namespacePath, `/sys/class/net/${slot.veth}`]) {
    if (await exists(path)) throw new Error(`${path} cannot be removed`, { cause: failure });
  }
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

function script(slot: Slot): string {
  return `
ip -batch - <<'BATCH'
netns add ${slot.namespace}
link add ${slot.veth} type veth peer name eth0 netns ${slot.namespace}
link set ${slot.veth} addrgenmode none
addr add ${slot.hostSide}/31 dev ${slot.veth}
link set ${slot.veth} up
route replace ${slot.hostIp}/32 via ${slot.namespaceSide} dev ${slot.veth}
BATCH
exec nsenter --net=${slot.namespacePath} sh -e <<'INSIDE'
for name in all default; do
  if [ -e /proc/sys/net/ipv6/conf/$name ]; then echo 1 > /proc/sys/net/ipv6/conf/$name/disable_ipv6; fi
done
echo 1 > /proc/sys/net/ipv4/ip_forward
nft -f - <<'RULES'
${namespaceRules(slot)}
RULES
ip -batch - <<'BATCH'
link set lo up
addr add ${slot.namespaceSide}/31 dev eth0
link set eth0 up
route add default via ${slot.hostSide}
tuntap add dev ${GUEST.tap} mode tap user ${slot.uid} group ${slot.gid}
link set ${GUEST.tap} address ${GUEST.gatewayMac}
addr add ${GUEST.gateway}/${GUEST.prefixLength} dev ${GUEST.tap}
link set ${GUEST.tap} up
neigh replace ${GUEST.address} lladdr ${GUEST.mac} dev ${GUEST.tap} nud permanent
BATCH
INSIDE
`;
}

/**
 * The guest may open connections to public addresses only; into the guest only the host may. The guest sees the host
 * as its gateway, so what its memory holds is true in every slot.
 */
function namespaceRules(slot: Slot): string {
  return `
table ip wrenn {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    iifname "eth0" ip saddr ${slot.hostSide} ip daddr ${slot.hostIp} dnat to ${GUEST.address}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "${GUEST.tap}" snat to ${GUEST.gateway}
    oifname "eth0" snat to ${slot.namespaceSide}
  }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state invalid drop
    iifname "${GUEST.tap}" ip saddr != ${GUEST.address} drop
    ct state established,related accept
    iifname "eth0" oifname "${GUEST.tap}" ip saddr ${slot.hostSide} ct status dnat accept
    iifname "${GUEST.tap}" oifname "eth0" ip daddr != { ${BLOCKED_DESTINATIONS.join(', ')} } accept
  }
}`;
}
