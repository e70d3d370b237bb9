import type { AwakeReason, CapsuleBody } from '@wrenn/protocol/rest/capsule';
import type { Capsule } from '../database/schema.ts';
import type { CapsuleActivity } from './activity.ts';
import type { GuestProbes, Observation } from './guest-probes.ts';

/** How long whoever asks about a capsule waits for its guest. */
const PROBE_BUDGET_MS = 500;

export interface AwakeDeps {
  readonly activity: CapsuleActivity;
  readonly probes: GuestProbes;
}

/**
 * What keeps a running capsule awake. Asking is no use of it.
 *
 * @returns undefined when it does not run; or when its guest does not answer in time and nothing else is known to keep
 *   it awake, because then nobody can say that it is idle
 */
export async function describeAwake(
  { activity, probes }: AwakeDeps,
  capsule: Capsule,
  signal: AbortSignal,
): Promise<CapsuleBody['awake']> {
  if (capsule.status !== 'running') return undefined;
  const streams = activity.uses(capsule.id).map(
    ({ kind, detail, since }): AwakeReason => ({
      kind,
      detail,
      since: since.toISOString(),
    }),
  );
  const budget = AbortSignal.any([signal, AbortSignal.timeout(PROBE_BUDGET_MS)]);
  const observation = await probes.observe(capsule, budget).catch(() => undefined);
  if (!observation && streams.length === 0) return undefined;
  const reasons = [...streams, ...(observation ? guestReasons(observation, streams.length === 0) : [])];
  const busy = reasons.length > 0;
  return { busy, reasons, idle_since: busy ? null : (capsule.lastActiveAt?.toISOString() ?? null) };
}

/** @param withStreams false where the streams are known by name already, which the guest counts too */
export function guestReasons({ activity, cpu }: Observation, withStreams: boolean): AwakeReason[] {
  const { leases, open_streams: open, open_streams_since: openSince } = activity;
  const reasons: AwakeReason[] = leases.map(({ name, expires_at, since }) => ({
    kind: 'lease',
    detail: `lease ${name} until ${expires_at}`,
    since,
  }));
  if (cpu?.busySince) {
    reasons.push({ kind: 'cpu', detail: cpuDetail(cpu.share), since: cpu.busySince.toISOString() });
  }
  if (withStreams && openSince !== null) {
    const detail = open === 1 ? 'a client follows a process' : `${open} clients follow processes`;
    reasons.push({ kind: 'stream', detail, since: openSince });
  }
  return reasons;
}

export function cpuDetail(share: number): string {
  return `${Math.round(share * 100)} % of one vCPU`;
}
