/** Interface names have at most 15 characters, so `wrenn-veth-{index}` allows four digits. */
export const MAX_SLOT = 9999;

/** The guest's side is the same in every slot, so that a memory snapshot runs in any of them. */
export const GUEST = {
  address: '169.254.0.21',
  gateway: '169.254.0.22',
  prefixLength: 30,
  mac: '02:FC:00:00:00:05',
  /** The guest keeps the gateway's MAC in its snapshot. */
  gatewayMac: '02:FC:00:00:00:06',
  tap: 'tap0',
} as const;

const FIRST_UID = 200_000;

/** All names and addresses of one network slot, 1 to MAX_SLOT. */
export function slotOf(index: number) {
  if (!Number.isInteger(index) || index < 1 || index > MAX_SLOT) throw new RangeError(`no slot ${index}`);
  const namespace = `wrenn-ns-${index}`;
  return {
    index,
    namespace,
    namespacePath: `/run/netns/${namespace}`,
    /** The end of the pair that stays with the host; the other is `eth0` in the namespace. */
    veth: `wrenn-veth-${index}`,
    /** The host's and the namespace's address on that pair, a /31. */
    hostSide: `10.12.${(2 * index) >> 8}.${(2 * index) & 255}`,
    namespaceSide: `10.12.${(2 * index + 1) >> 8}.${(2 * index + 1) & 255}`,
    /** Where the host reaches the guest. */
    hostIp: `10.11.${index >> 8}.${index & 255}`,
    /** User and group that the VM's process drops to; no other VM has it. */
    uid: FIRST_UID + index,
    gid: FIRST_UID + index,
  } as const;
}

export type Slot = ReturnType<typeof slotOf>;
