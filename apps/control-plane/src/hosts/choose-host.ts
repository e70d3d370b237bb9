import { WrennError } from '@wrenn/protocol/errors';
import type { Host } from './host.ts';

/** What a capsule needs of its host. */
export interface Needs {
  readonly template: string;
  readonly vcpus: number;
  readonly memoryMb: number;
}

/**
 * The host for a new capsule.
 *
 * @throws WrennError `no_hosts_available`, `template_not_found` or `invalid_shape`, whichever is nearest to success
 */
export function chooseHost(hosts: readonly Host[], needs: Needs): Host {
  const online = hosts.flatMap((host) => (host.online && host.facts ? [{ host, facts: host.facts }] : []));
  if (online.length === 0) throw new WrennError('no_hosts_available', { problem: 'no host is online' });

  const withTemplate = online.filter(({ facts }) => facts.templates.some(({ name }) => name === needs.template));
  if (withTemplate.length === 0) throw new WrennError('template_not_found', { name: needs.template });

  const fitting = withTemplate.find(
    ({ facts }) => needs.vcpus <= facts.cpuCount && needs.memoryMb <= Number(facts.memoryMb),
  );
  if (!fitting) {
    const cpuCount = Math.max(...withTemplate.map(({ facts }) => facts.cpuCount));
    const memoryMb = Math.max(...withTemplate.map(({ facts }) => Number(facts.memoryMb)));
    throw new WrennError('invalid_shape', {
      vcpus: needs.vcpus,
      memory_mb: needs.memoryMb,
      problem: `the largest host has ${cpuCount} vCPUs and ${memoryMb} MiB of memory`,
    });
  }
  return fitting.host;
}
