import { readFileSync } from 'node:fs';

/** Bytes that went over an interface since it was made. */
export interface InterfaceUse {
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/**
 * The counters of all interfaces of this network namespace, in one read. Of a VM's slot it has the host's end of its
 * pair: what a guest sent to where it may not go is not in it.
 */
export function readInterfaces(path = '/proc/net/dev'): Map<string, InterfaceUse> {
  const all = new Map<string, InterfaceUse>();
  // Two lines of headings.
  for (const line of readFileSync(path, 'latin1').split('\n').slice(2)) {
    const colon = line.lastIndexOf(':');
    if (colon < 0) continue;
    const numbers = line
      .slice(colon + 1)
      .trim()
      .split(/ +/);
    all.set(line.slice(0, colon).trim(), { receivedBytes: Number(numbers[0]), sentBytes: Number(numbers[8]) });
  }
  return all;
}
