import type { HostBody } from '@wrenn/protocol/rest/hosts';
import { formatAge, formatInstant } from '../../terminal/format.ts';
import type { Column } from '../../terminal/table.ts';

/** Beyond this certificates and tokens suffer. */
const CLOCK_TOLERANCE_MS = 30_000;

export function hostColumns(nowMs: number): Column<HostBody>[] {
  return [
    { title: 'HOST', value: ({ id }) => id },
    { title: 'STATUS', value: describeStatus },
    { title: 'TYPE', value: describeType },
    { title: 'RUNNING', value: ({ running_capsules }) => String(running_capsules), align: 'right' },
    { title: 'ASLEEP', value: ({ sleeping_capsules }) => String(sleeping_capsules), align: 'right' },
    {
      title: 'VCPUS',
      value: ({ reserved_vcpus, cpu_cores }) => `${reserved_vcpus}/${orDash(cpu_cores)}`,
      align: 'right',
    },
    {
      title: 'MEMORY',
      value: ({ reserved_memory_mb, memory_mb }) => `${reserved_memory_mb}/${orDash(memory_mb)} MiB`,
      align: 'right',
    },
    { title: 'BY', value: describeHypervisor },
    { title: 'TAGS', value: ({ tags }) => tags.join(' ') || '-' },
    {
      title: 'HEARD',
      value: ({ last_heartbeat_at }) => (last_heartbeat_at ? formatAge(nowMs - Date.parse(last_heartbeat_at)) : '-'),
      align: 'right',
    },
  ];
}

/** A page about a host, as titles and texts. */
export function describeHost(host: HostBody, nowMs: number): [string, string][] {
  const when = (timestamp: string) => `${formatInstant(timestamp)}, ${formatAge(nowMs - Date.parse(timestamp))} ago`;
  return [
    ['Host', host.id],
    ['Status', describeStatus(host)],
    ...optional('Problem', host.problem),
    ['Type', describeType(host)],
    ...optional('Provider', host.provider),
    ...optional('Zone', host.availability_zone),
    ['Tags', host.tags.join(' ') || 'none'],
    ['Machine', `${orDash(host.arch)}, ${orDash(host.cpu_cores)} CPUs, ${orDash(host.memory_mb)} MiB of memory`],
    ['Disk', `${orDash(host.disk_gb)} GiB, ${orDash(host.disk_free_mb)} MiB free`],
    ['Runs by', describeHypervisor(host)],
    ['Agent', orDash(host.agent_version)],
    ['Reached', host.connection === 'outbound' ? 'over the connection that it holds' : `at ${orDash(host.address)}`],
    ['Capsules', `${host.running_capsules} run, ${host.sleeping_capsules} sleep`],
    ['Reserved', `${host.reserved_vcpus} vCPUs, ${host.reserved_memory_mb} MiB of memory`],
    ...(host.unknown_vms > 0 ? [['Unknown', `${host.unknown_vms} microVMs that are nobody's capsule`] as const] : []),
    ['Templates', host.templates.join(' ') || 'none'],
    ['Heard', host.last_heartbeat_at ? when(host.last_heartbeat_at) : 'never'],
    ...(isFarOff(host) ? [['Clock', `${Math.round((host.clock_offset_ms ?? 0) / 1000)} s ahead`] as const] : []),
    ...optional('Certificate', host.cert_expires_at && `ends ${formatInstant(host.cert_expires_at)}`),
    ['Made', when(host.created_at)],
  ].map(([title = '', text = '']): [string, string] => [title, text]);
}

function describeStatus({ status, cordoned, drain, problem, unknown_vms, running_capsules }: HostBody): string {
  return [
    status,
    ...(drain === null ? [] : [running_capsules > 0 ? `to ${drain} ${running_capsules}` : 'empty']),
    ...(cordoned && status !== 'draining' ? ['cordoned'] : []),
    ...(problem === null ? [] : ['problem']),
    ...(unknown_vms > 0 ? [`${unknown_vms} unknown VMs`] : []),
  ].join(', ');
}

function describeType({ type, team_name }: HostBody): string {
  return team_name ? `${type} of ${team_name}` : type;
}

function describeHypervisor({ hypervisor, accelerator }: HostBody): string {
  return hypervisor ? `${hypervisor} ${orDash(accelerator)}` : '-';
}

function isFarOff({ clock_offset_ms }: HostBody): boolean {
  return Math.abs(clock_offset_ms ?? 0) > CLOCK_TOLERANCE_MS;
}

function optional(title: string, text: string | null): [string, string][] {
  return text === null ? [] : [[title, text]];
}

function orDash(value: string | number | null): string {
  return value === null ? '-' : String(value);
}
