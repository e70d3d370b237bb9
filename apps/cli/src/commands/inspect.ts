import { styleText } from 'node:util';
import type { CapsuleBody } from '@wrenn/protocol/rest/capsule';
import type { Command } from 'commander';
import { resolveCapsuleId } from '../capsule-ref.ts';
import { type Cli, print, printJson } from '../cli.ts';
import { formatBytes } from '../terminal/format.ts';
import { formatFacts } from '../terminal/table.ts';
import { describeInstant, describeLifetime, describeSince } from './lifetime.ts';
import { colourOf, isAsleep } from './ls.ts';

export function addInspectCommand(program: Command, cli: Cli): void {
  program
    .command('inspect')
    .description('show all about a capsule: its state, its sleep, what keeps it awake')
    .argument('<id>', 'the capsule, in any state')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  wrenn inspect cl-1a2b\n  wrenn inspect --json cl-1a2b | jq .awake')
    .action(async (ref: string, options: { json?: boolean }) => {
      const api = cli.api();
      const capsule = await api.getCapsule(await resolveCapsuleId(api, ref, cli.signal), cli.signal);
      if (options.json) return printJson(capsule);
      print(styleText('bold', capsule.id, { stream: process.stdout }));
      print(formatFacts(describeCapsule(capsule, Date.now())));
    });
}

/** A page about a capsule, as titles and texts. A title that is empty goes on with the one before. */
function describeCapsule(capsule: CapsuleBody, nowMs: number): [string, string][] {
  const { guest_ip, host_ip, metadata } = capsule;
  const when = (timestamp: string | null) => (timestamp === null ? 'never' : describeInstant(timestamp, nowMs));
  return [
    ['Status', describeStatus(capsule, nowMs)],
    ...optional('Reason', capsule.status_reason),
    ...describeAwake(capsule, nowMs),
    ['Template', capsule.template],
    ['Shape', describeShape(capsule)],
    ['Sleep', describeSleep(capsule, nowMs)],
    ...optional('Damage', capsule.snapshot_problem),
    ...describeLifetime(capsule, nowMs),
    ...optional('Made of', capsule.snapshot_id),
    ...optional('Forked from', capsule.forked_from),
    ...optional('Address', host_ip && `${guest_ip} in the guest, ${host_ip} on its host`),
    ['Created', when(capsule.created_at)],
    ['Started', when(capsule.started_at)],
    ['Last used', when(capsule.last_active_at)],
    ...Object.entries(metadata).map(([name, value], index): [string, string] => [
      index === 0 ? 'Metadata' : '',
      `${name}=${value}`,
    ]),
  ];
}

function optional(title: string, text: string | null): [string, string][] {
  return text === null ? [] : [[title, text]];
}

function describeStatus({ status, slept_at }: CapsuleBody, nowMs: number): string {
  const since = isAsleep(status) && slept_at !== null ? `, asleep ${describeSince(slept_at, nowMs)}` : '';
  return `${colourOf(status)}${since}`;
}

function describeShape({ vcpus, memory_mb, disk_mb }: CapsuleBody): string {
  const disk = disk_mb === null ? '' : `, disk of ${disk_mb} MiB`;
  return `${vcpus} vCPU${vcpus === 1 ? '' : 's'}, ${memory_mb} MiB of memory${disk}`;
}

function describeSleep({ status, generation, slept_at, snapshot_bytes, memory }: CapsuleBody, nowMs: number): string {
  if (generation === 0) return 'has not slept yet';
  const parts = [`generation ${generation}`];
  if (slept_at !== null && !isAsleep(status)) parts.push(`slept ${describeInstant(slept_at, nowMs)}`);
  if (status === 'hibernated') parts.push('in the object store');
  else if (snapshot_bytes !== null) parts.push(`${formatBytes(snapshot_bytes)} on its host`);
  if (memory === 'discarded') parts.push('its last start discarded the memory');
  return parts.join(', ');
}

function describeAwake({ status, awake }: CapsuleBody, nowMs: number): [string, string][] {
  if (status !== 'running' || awake === undefined) return [];
  if (awake.reasons.length > 0) {
    return awake.reasons.map(({ kind, detail, since }, index) => [
      index === 0 ? 'Kept awake' : '',
      `by ${kind} ${describeSince(since, nowMs)}: ${detail}`,
    ]);
  }
  const idle = awake.idle_since === null ? 'nothing' : `nothing; idle ${describeSince(awake.idle_since, nowMs)}`;
  return [['Kept awake', awake.busy ? 'a request is under way' : idle]];
}
