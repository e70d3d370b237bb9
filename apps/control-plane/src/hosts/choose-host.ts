import { WrennError } from '@wrenn/protocol/errors';
import type { Host } from './host.ts';

/** What a capsule needs of its host. */
export interface Needs {
  readonly vcpus: number;
  readonly memoryMb: number;
  /** Undefined: the capsule brings its own disk. */
  readonly template?: string | undefined;
  /** The only host that will do: what the capsule is made of is there. */
  readonly hostId?: string | undefined;
}

/**
 * The host for a capsule.
 *
 * @throws WrennError `no_hosts_available`, `template_not_found` or `invalid_shape`, whichever is nearest to success
 */
export function chooseHost(hosts: readonly Host[], needs: Needs): Host {
  const online = hosts.flatMap((host) => (host.online && host.facts ? [{ host, facts: host.facts }] : []));
  if (online.length === 0) throw new WrennError('no_hosts_available', { problem: 'no host is online' });

  const { template, hostId } = needs;
  const right = online.filter(({ host }) => hostId === undefined || host.id === hostId);
  if (right.length === 0)
    throw new WrennError('no_hosts_available', { problem: 'the host of the snapshot is offline' });

  const holding = right.filter(
    ({ facts }) => template === undefined || facts.templates.some(({ name }) => name === template),
  );
  if (holding.length === 0) throw new WrennError('template_not_found', { name: template ?? '' });

  const fitting = holding.find(
    ({ facts }) => needs.vcpus <= facts.cpuCount && needs.memoryMb <= Number(facts.memoryMb),
  );
  if (!fitting) {
    const cpuCount = Math.max(...holding.map(({ facts }) => facts.cpuCount));
    const memoryMb = Math.max(...holding.map(({ facts }) => Number(facts.memoryMb)));
    throw new WrennError('invalid_shape', {
      vcpus: needs.vcpus,
      memory_mb: needs.memoryMb,
      problem: `the largest host has ${cpuCount} vCPUs and ${memoryMb} MiB of memory`,
    });
  }
  return fitting.host;
}
