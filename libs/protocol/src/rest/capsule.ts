import { z } from 'zod';
import { hostTagSchema } from './hosts.ts';
import { arrayQueryFields } from './paging.ts';

/** States of a capsule. */
export const CAPSULE_STATUSES = [
  /** Recorded; nothing is made yet. */
  'pending',
  /** The host makes its microVM. */
  'starting',
  /** The guest has confirmed; it can be used. */
  'running',
  'pausing',
  /** Memory and disk are on the host's disk. */
  'paused',
  'hibernating',
  /** Memory and disk are in the object store. */
  'hibernated',
  'resuming',
  'forking',
  /** Its microVM is being ended. */
  'stopping',
  /** Ended; nothing of it is left but its record. */
  'stopped',
  /** Its host is silent. */
  'missing',
  /** It failed; `status_reason` says why. */
  'error',
] as const;

export const capsuleStatusSchema = z.enum(CAPSULE_STATUSES).meta({ id: 'CapsuleStatus' });

export type CapsuleStatus = z.output<typeof capsuleStatusSchema>;

/** Keys of `metadata` that the system fills. */
const SYSTEM_METADATA = [
  'kernel_version',
  'hypervisor_version',
  'firecracker_version',
  'vmm_version',
  'agent_version',
  'envd_version',
] as const;

const timestamp = z.iso.datetime({ offset: true });

/** What happens to a capsule that is idle for its timeout, or meets its deadline. */
export const TIMEOUT_ACTIONS = ['pause', 'destroy'] as const;

export const capsuleTraceSchema = z
  .object({
    kind: z.enum(['create', 'resume', 'fork']),
    started_at: timestamp,
    duration_ms: z.number().meta({ description: 'From the request to the first answer of the guest.' }),
    steps: z.array(
      z.object({
        name: z.string(),
        where: z.enum(['control-plane', 'host']),
        offset_ms: z.number().meta({ description: 'From started_at to the beginning of the step.' }),
        duration_ms: z.number(),
      }),
    ),
  })
  .meta({ id: 'CapsuleTrace' });

/** The timeline of one start. */
export type CapsuleTrace = z.output<typeof capsuleTraceSchema>;

const awakeReasonSchema = z.object({
  kind: z.enum(['stream', 'cpu', 'lease']),
  detail: z.string().meta({ description: 'For a person: which stream, how much CPU, which lease until when.' }),
  since: timestamp,
});

export type AwakeReason = z.output<typeof awakeReasonSchema>;

export const capsuleSchema = z
  .object({
    id: z.string().meta({ examples: ['cl-1a2b3c4d5e6f7g8h9i0jklmno'] }),
    status: capsuleStatusSchema,
    status_reason: z.string().nullable().meta({ description: 'Why it is in this state, where that needs saying.' }),
    template: z.string(),
    vcpus: z.int(),
    memory_mb: z.int(),
    disk_mb: z.int().nullable().meta({ description: 'Size of its disk in MiB; null until it was started once.' }),
    timeout_sec: z.int().meta({ description: 'Seconds without activity after which on_timeout happens; 0 is never.' }),
    on_timeout: z.enum(TIMEOUT_ACTIONS),
    auto_resume: z.boolean().meta({ description: 'Resumes by itself when it is paused and somebody uses it.' }),
    deadline_at: timestamp.nullable().meta({ description: 'When on_timeout happens whatever it does.' }),
    generation: z.int().meta({ description: 'How many times it has slept; names its last snapshot.' }),
    slept_at: timestamp.nullable(),
    snapshot_bytes: z.int().nullable().meta({ description: "Bytes on the host's disk that its last sleep holds." }),
    snapshot_problem: z.string().nullable().meta({
      description: 'Why its last sleep cannot be resumed as it is; null when nothing is known against it.',
    }),
    memory: z
      .enum(['kept', 'discarded'])
      .meta({ description: 'discarded: its last resume booted the disk without the memory that it slept with.' }),
    forked_from: z.string().nullable().meta({ description: 'Id of the capsule that it was forked from.' }),
    snapshot_id: z
      .string()
      .nullable()
      .meta({ description: "Id of the snapshot that it was made of, in place of its template's own." }),
    awake: z
      .object({ busy: z.boolean(), reasons: z.array(awakeReasonSchema), idle_since: timestamp.nullable() })
      .optional()
      .meta({ description: 'What keeps a running capsule awake, and since when. Only in answers for one capsule.' }),
    trace: capsuleTraceSchema.nullable().optional().meta({ description: 'Its last start; with ?trace=1.' }),
    guest_ip: z.string().nullable().meta({ description: 'Address that the guest has itself.' }),
    host_ip: z.string().nullable().meta({ description: 'Address of the guest as its host sees it.' }),
    created_at: timestamp,
    started_at: timestamp.nullable(),
    last_active_at: timestamp.nullable(),
    last_updated: timestamp,
    metadata: z
      .record(z.string(), z.string())
      .meta({ description: `Labels given at creation, and, once it runs, ${SYSTEM_METADATA.join(', ')}.` }),
  })
  .meta({ id: 'Capsule' });

export type CapsuleBody = z.output<typeof capsuleSchema>;

export const capsuleListSchema = z.array(capsuleSchema);

/** Names of templates. */
export const templateNameSchema = z
  .string()
  .regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$/, 'must be at most 64 letters, digits, ".", "_", "-"');

/** Environment variables for a process. */
export const envsSchema = z
  .record(
    z.string().regex(/^[^=\0]{1,256}$/, 'names must not be empty or hold "="'),
    z
      .string()
      .max(131_072)
      .regex(/^[^\0]*$/, 'values must not hold a NUL character'),
  )
  .refine((envs) => Object.keys(envs).length <= 512, 'at most 512 variables');

/** Labels of a capsule. */
export const labelsSchema = z
  .record(
    z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$/, 'keys are letters, digits, ".", "_", "-"'),
    z.string().max(512),
  )
  .refine((labels) => Object.keys(labels).length <= 20, 'at most 20 keys')
  .refine(
    (labels) => SYSTEM_METADATA.every((key) => !(key in labels)),
    `${SYSTEM_METADATA.join(', ')} are the system's`,
  );

const idleTimeout = z.int().min(0).max(31_536_000);
const deadline = z.int().min(1).max(31_536_000);

/** When a capsule goes to sleep, and what then. */
const lifetimeFields = {
  timeout_sec: idleTimeout
    .default(0)
    .meta({ description: 'Seconds without activity after which on_timeout happens; 0 is never.' }),
  on_timeout: z.enum(TIMEOUT_ACTIONS).default('pause'),
  auto_resume: z.boolean().default(false),
  deadline_sec: deadline
    .nullish()
    .meta({ description: 'Seconds from now until on_timeout happens whatever the capsule does. Default: never.' }),
} as const;

export const createCapsuleRequestSchema = z
  .object({
    template: templateNameSchema
      .default('minimal')
      .meta({ description: 'Name of a template, or of a snapshot of the team.' }),
    vcpus: z.int().min(1).max(1024).optional().meta({ description: "Default: 1, or the snapshot's." }),
    memory_mb: z
      .int()
      .min(1)
      .max(16_777_216)
      .optional()
      .meta({ description: "Guest memory in MiB. Default: 512, or the snapshot's." }),
    disk_mb: z
      .int()
      .min(0)
      .max(16_777_216)
      .optional()
      .meta({ description: "Size of the disk in MiB. Default, and 0: the template's, or the snapshot's." }),
    ...lifetimeFields,
    envs: envsSchema.default({}).meta({ description: 'Environment of every process in the capsule.' }),
    metadata: labelsSchema.default({}).meta({ description: 'Labels: at most 20 keys.' }),
    host_tags: z
      .array(hostTagSchema)
      .max(20)
      .default([])
      .meta({ description: 'Only hosts will do that have all these tags.' }),
  })
  .meta({ id: 'CreateCapsuleRequest' });

/** What a client sends: every field is optional. */
export type CreateCapsuleBody = z.input<typeof createCapsuleRequestSchema>;
/** The same with its defaults filled in. */
export type CreateCapsuleRequest = z.output<typeof createCapsuleRequestSchema>;

/** `PATCH /v1/capsules/{id}`: what is left out stays as it is. */
export const updateCapsuleRequestSchema = z
  .object({
    timeout_sec: idleTimeout,
    on_timeout: z.enum(TIMEOUT_ACTIONS),
    auto_resume: z.boolean(),
    deadline_sec: deadline.nullable().meta({ description: 'Seconds from now; null takes the deadline away.' }),
    metadata: labelsSchema.meta({ description: 'Replaces all labels.' }),
  })
  .partial()
  .meta({ id: 'UpdateCapsuleRequest' });

export type UpdateCapsuleRequest = z.output<typeof updateCapsuleRequestSchema>;

export const traceQuerySchema = z.object({
  trace: z.enum(['0', '1']).optional().meta({ description: '1: the answer holds the timeline of the start.' }),
});

/** A label that a capsule has: `key=value`, or `key` for any value. */
const labelFilter = z.string().min(1).max(600);

export const listCapsulesQuerySchema = z.object({
  status: z.string().optional().meta({
    description: 'States to list, with commas between them. Default: all but stopped and error. `all` is all.',
  }),
  template: z.string().max(100).optional().meta({ description: 'Name of a template; name or id of a snapshot.' }),
  host: z.string().max(100).optional().meta({ description: 'Id of a host.' }),
  label: z
    .union([labelFilter, z.array(labelFilter).max(20)])
    .transform((labels) => [labels].flat())
    .optional()
    .meta({ description: '`key=value`, or `key` for any value. May be repeated: then all of them.' }),
  created_after: timestamp.optional().meta({ description: 'Made then or later.' }),
  created_before: timestamp.optional().meta({ description: 'Made earlier.' }),
  ...arrayQueryFields,
});

export type ListCapsulesQuery = z.output<typeof listCapsulesQuerySchema>;

export const capsuleParamsSchema = z.object({ id: z.string() });

export const capsuleLogsQuerySchema = z.object({
  max_bytes: z.coerce
    .number()
    .int()
    .min(1)
    .max(1_048_576)
    .default(65_536)
    .meta({ description: 'At most this many bytes from the end of the console.' }),
});
