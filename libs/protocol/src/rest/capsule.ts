import { z } from 'zod';

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

export const capsuleSchema = z
  .object({
    id: z.string().meta({ examples: ['cl-1a2b3c4d5e6f7g8h9i0jklmno'] }),
    status: capsuleStatusSchema,
    status_reason: z.string().nullable().meta({ description: 'Why it is in this state, where that needs saying.' }),
    template: z.string(),
    vcpus: z.int(),
    memory_mb: z.int(),
    disk_mb: z.int().nullable().meta({ description: 'Size of its disk in MiB; null until it was started once.' }),
    timeout_sec: z.int().meta({ description: 'Seconds without activity after which it is stopped; 0 is never.' }),
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

const labelsSchema = z
  .record(
    z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$/, 'keys are letters, digits, ".", "_", "-"'),
    z.string().max(512),
  )
  .refine((labels) => Object.keys(labels).length <= 20, 'at most 20 keys')
  .refine(
    (labels) => SYSTEM_METADATA.every((key) => !(key in labels)),
    `${SYSTEM_METADATA.join(', ')} are the system's`,
  );

export const createCapsuleRequestSchema = z
  .object({
    template: templateNameSchema.default('minimal'),
    vcpus: z.int().min(1).max(1024).default(1),
    memory_mb: z.int().min(1).max(16_777_216).default(512).meta({ description: 'Guest memory in MiB.' }),
    disk_mb: z
      .int()
      .min(0)
      .max(16_777_216)
      .default(0)
      .meta({ description: "Size of the disk in MiB; 0 is the template's default." }),
    timeout_sec: z
      .int()
      .min(0)
      .max(31_536_000)
      .default(0)
      .meta({ description: 'Seconds without activity after which the capsule is stopped; 0 is never.' }),
    envs: envsSchema.default({}).meta({ description: 'Environment of every process in the capsule.' }),
    metadata: labelsSchema.default({}).meta({ description: 'Labels: at most 20 keys.' }),
  })
  .meta({ id: 'CreateCapsuleRequest' });

/** What a client sends: every field is optional. */
export type CreateCapsuleBody = z.input<typeof createCapsuleRequestSchema>;
/** The same with its defaults filled in. */
export type CreateCapsuleRequest = z.output<typeof createCapsuleRequestSchema>;

export const listCapsulesQuerySchema = z.object({
  status: z.string().optional().meta({
    description: 'States to list, with commas between them. Default: all but stopped and error. `all` is all.',
  }),
});

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
