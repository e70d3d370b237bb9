import { access, constants, readFile } from 'node:fs/promises';
import { messageOf } from '../cli-error.ts';
import { tryCommand } from './command.ts';
import { type Finding, fail, ok, warn } from './finding.ts';

export async function checkNetwork(signal: AbortSignal): Promise<Finding[]> {
  const findings = [await checkTun(), await checkForwarding()];
  // Without root the kernel refuses what works for the platform.
  if (process.getuid?.() === 0) findings.push(await checkNamespaces(signal), await checkNftables(signal));
  return findings;
}

async function checkTun(): Promise<Finding> {
  try {
    await access('/dev/net/tun', constants.R_OK | constants.W_OK);
    return ok('TUN', '/dev/net/tun is there');
  } catch (error) {
    return fail(
      'TUN',
      `/dev/net/tun cannot be used: ${messageOf(error)}`,
      'Load it with `modprobe tun`; where this machine is a container, give it the device.',
    );
  }
}

async function checkForwarding(): Promise<Finding> {
  const value = (await readFile('/proc/sys/net/ipv4/ip_forward', 'utf8')).trim();
  if (value === '1') return ok('forwarding', 'net.ipv4.ip_forward is 1');
  return warn(
    'forwarding',
    'net.ipv4.ip_forward is 0; capsules reach the internet only with 1',
    'The host agent turns it on when it starts; to keep it: `sysctl -w net.ipv4.ip_forward=1`.',
  );
}

/** Makes a namespace with a firewall table and a TAP device in it, as each capsule gets, and removes it. */
async function checkNamespaces(signal: AbortSignal): Promise<Finding> {
  const name = `wrenn-doctor-${process.pid}`;
  try {
    for (const args of [
      ['netns', 'add', name],
      ['-n', name, 'tuntap', 'add', 'tap0', 'mode', 'tap'],
    ]) {
      const answer = await tryCommand('ip', args, signal);
      if (answer.ok) continue;
      if (answer.missing) return fail('namespaces', 'the command ip is missing', 'apt-get install iproute2');
      return fail(
        'namespaces',
        `\`ip ${args.join(' ')}\` failed: ${answer.reason}`,
        'Allow network namespaces and TAP devices: where this machine is a container, it needs to be privileged.',
      );
    }
    return ok('namespaces', 'a network namespace with a TAP device can be made');
  } finally {
    await tryCommand('ip', ['netns', 'del', name], AbortSignal.timeout(10_000));
  }
}

async function checkNftables(signal: AbortSignal): Promise<Finding> {
  const answer = await tryCommand('nft', ['list', 'tables'], signal);
  if (answer.ok) return ok('firewall', 'nftables answers');
  if (answer.missing) return fail('firewall', 'the command nft is missing', 'apt-get install nftables');
  return fail(
    'firewall',
    `nft failed: ${answer.reason}`,
    'Load it with `modprobe nf_tables`, or use a kernel that has it.',
  );
}
