import { z } from 'zod';

const timestamp = z.iso.datetime({ offset: true });

/** regular: the platform's; byoc: a team's own. */
export const HOST_TYPES = ['regular', 'byoc'] as const;
export const HOST_STATUSES = ['pending', 'online', 'unreachable', 'draining', 'deleted'] as const;

/** `10.0.0.5:50051`, `[fd00::5]:50051` or `host.example.com:50051`: where the control plane reaches the agent. */
export const hostAddressSchema = z
  .string()
  .max(300)
  .regex(/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):\d{1,5}$/, 'must be host:port');

export const hostTagSchema = z
  .string()
  .trim()
  .toLowerCase()
  .regex(/^[a-z0-9][a-z0-9._=-]{0,63}$/, 'must be at most 64 letters, digits, ".", "_", "=", "-"');

/** `POST /v1/hosts`. */
export const createHostRequestSchema = z
  .object({
    type: z.enum(HOST_TYPES).default('regular'),
    team_id: z.string().optional().meta({ description: 'Whose host it is, for byoc. Default: the team of the token.' }),
    provider: z.string().max(100).optional(),
    availability_zone: z.string().max(100).optional(),
    tags: z.array(hostTagSchema).max(50).default([]),
  })
  .meta({ id: 'CreateHostRequest' });

export const hostSchema = z
  .object({
    id: z.string(),
    type: z.enum(HOST_TYPES),
    team_id: z.string().nullable(),
    team_name: z.string().nullable(),
    provider: z.string().nullable(),
    availability_zone: z.string().nullable(),
    arch: z.string().nullable().meta({ description: 'amd64 or arm64.' }),
    cpu_cores: z.int().nullable(),
    memory_mb: z.int().nullable(),
    disk_gb: z.int().nullable().meta({ description: 'Size of the file system that holds WRENN_DIR.' }),
    disk_free_mb: z.int().nullable(),
    hypervisor: z.string().nullable(),
    accelerator: z.string().nullable().meta({ description: 'kvm or tcg.' }),
    agent_version: z.string().nullable(),
    templates: z.array(z.string()),
    tags: z.array(z.string()),
    address: z.string().nullable(),
    connection: z
      .enum(['inbound', 'outbound'])
      .meta({ description: 'outbound: the agent cannot be reached and holds connections to the control plane.' }),
    status: z.enum(HOST_STATUSES),
    cordoned: z.boolean().meta({ description: 'Gets no new capsules.' }),
    drain: z
      .enum(['pause', 'hibernate'])
      .nullable()
      .meta({ description: 'How its capsules are being put to sleep; running_capsules says how many still run.' }),
    problem: z.string().nullable().meta({ description: 'Why it cannot be used although its agent answers.' }),
    unknown_vms: z.int().meta({ description: 'MicroVMs on it that are nobody’s capsule. They are left alone.' }),
    last_heartbeat_at: timestamp.nullable(),
    cert_expires_at: timestamp.nullable(),
    clock_offset_ms: z
      .int()
      .nullable()
      .meta({ description: 'How far its clock is ahead of the platform; beyond 30 s certificates and tokens suffer.' }),
    running_capsules: z.int(),
    sleeping_capsules: z.int(),
    reserved_vcpus: z.int(),
    reserved_memory_mb: z.int(),
    created_by: z.string().nullable(),
    created_at: timestamp,
    updated_at: timestamp,
  })
  .meta({ id: 'Host' });
export type HostBody = z.output<typeof hostSchema>;
export const hostListSchema = z.array(hostSchema);
export const hostTagListSchema = z.array(z.string());

export const hostParamsSchema = z.object({ id: z.string() });
export const hostTagParamsSchema = z.object({ id: z.string(), tag: z.string() });

/** `POST /v1/hosts` and `POST /v1/hosts/{id}/token`: the token is shown once and works once, for one hour. */
export const hostWithTokenSchema = z
  .object({ host: hostSchema, registration_token: z.string(), expires_at: timestamp })
  .meta({ id: 'HostWithToken' });

/** `POST /v1/hosts/register`: open to whoever has the token. */
export const registerHostRequestSchema = z
  .object({
    token: z.string().min(1).max(500),
    arch: z.string().max(20),
    cpu_cores: z.int().min(1).max(100_000),
    memory_mb: z.int().min(1),
    disk_gb: z.int().min(0),
    disk_free_mb: z.int().min(0).optional(),
    address: hostAddressSchema.optional().meta({ description: 'Absent: the agent connects to the control plane.' }),
    csr: z.string().max(10_000).meta({ description: 'Certificate signing request in PEM; the key stays on the host.' }),
    hypervisor: z.string().max(50).optional(),
    hypervisor_version: z.string().max(50).optional(),
    accelerator: z.string().max(20).optional(),
    kernel_version: z.string().max(100).optional(),
    agent_version: z.string().max(50).optional(),
  })
  .meta({ id: 'RegisterHostRequest' });

/** What a host proves itself with. `token` (a JWT, typ "host") is for heartbeats, `refresh_token` for the next set. */
export const hostCredentialsSchema = z
  .object({
    host_id: z.string(),
    token: z.string(),
    token_expires_at: timestamp,
    refresh_token: z.string(),
    refresh_expires_at: timestamp,
    cert_pem: z.string(),
    cert_expires_at: timestamp,
    ca_cert_pem: z.string(),
  })
  .meta({ id: 'HostCredentials' });
export type HostCredentialsBody = z.output<typeof hostCredentialsSchema>;

export const registerHostResponseSchema = hostCredentialsSchema
  .extend({ host: hostSchema })
  .meta({ id: 'RegisterHostResponse' });

/** `POST /v1/hosts/auth/refresh`. */
export const refreshHostRequestSchema = z
  .object({
    refresh_token: z.string().min(1).max(500),
    csr: z.string().max(10_000),
    address: hostAddressSchema
      .optional()
      .meta({ description: 'Where the agent is reached from now on, if elsewhere.' }),
  })
  .meta({ id: 'RefreshHostRequest' });

/** States of a VM on its host. */
export const HOST_VM_STATES = ['starting', 'running', 'stopping', 'failed', 'pausing', 'paused'] as const;

/** `POST /v1/hosts/{id}/heartbeat`, every 30 s, with the header X-Host-Token. A body is optional for old agents. */
export const heartbeatRequestSchema = z
  .object({
    sent_at: timestamp.meta({ description: 'By the clock of the host.' }),
    boot_id: z.string().max(64).optional().meta({
      description: 'Random for each process of the agent, so that a second agent with its credentials shows.',
    }),
    sequence: z.int().min(1).optional().meta({ description: 'Counts the heartbeats of the process.' }),
    agent_version: z.string().max(50),
    cpu_cores: z.int().min(1),
    memory_mb: z.int().min(1),
    memory_free_mb: z.int().min(0),
    disk_mb: z.int().min(0),
    disk_free_mb: z.int().min(0),
    load_1m: z.number().min(0),
    templates: z.array(z.string().max(64)).max(1000),
    vms: z
      .array(
        z.object({
          id: z.string().max(64),
          state: z.enum(HOST_VM_STATES),
          generation: z.int().min(0),
        }),
      )
      .max(100_000)
      .meta({ description: 'Everything that the host has.' }),
    samples: z
      .array(
        z.object({
          id: z.string().max(64),
          at: timestamp,
          cpu_pct: z.number().min(0).meta({ description: 'Of one vCPU times the vCPUs it has: 0 to 100.' }),
          memory_bytes: z.int().min(0),
          disk_bytes: z.int().min(0),
          counted_from: timestamp
            .optional()
            .meta({ description: 'When the VM started, and with it the counters of its network.' }),
          net_rx_bytes: z.int().min(0).meta({ description: 'Received by the guest since the VM started.' }),
          net_tx_bytes: z.int().min(0),
        }),
      )
      .max(100_000)
      .default([])
      .meta({ description: 'Measurements since the last heartbeat that was answered.' }),
  })
  .meta({ id: 'Heartbeat' });
export type Heartbeat = z.output<typeof heartbeatRequestSchema>;

/** 200 with what the host should know; a control plane of before answered 204. */
export const heartbeatResponseSchema = z
  .object({
    status: z.enum(HOST_STATUSES),
    renew: z.boolean().meta({ description: 'Credentials should be refreshed now.' }),
    control_planes: z
      .array(z.string())
      .meta({ description: 'Ids of all that run: an outbound host connects to each.' }),
    clock_offset_ms: z.int().optional().meta({ description: 'How far the clock of the host is ahead.' }),
  })
  .meta({ id: 'HeartbeatAnswer' });
export type HeartbeatAnswer = z.output<typeof heartbeatResponseSchema>;

export const deletePreviewSchema = z
  .object({
    host: hostSchema,
    sandbox_ids: z.array(z.string()).meta({ description: 'Every capsule on it, sleeping ones too.' }),
    running: z.int(),
    sleeping: z.int(),
    snapshots: z.array(z.string()).meta({ description: 'Names of snapshots that only this host has.' }),
  })
  .meta({ id: 'HostDeletePreview' });

export const deleteHostQuerySchema = z.object({
  force: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true')
    .meta({ description: 'End the capsules that it has, in place of a refusal.' }),
});

export const tagRequestSchema = z.object({ tag: hostTagSchema }).meta({ id: 'HostTagRequest' });

/** `POST /v1/hosts/{id}/drain`. */
export const drainHostRequestSchema = z
  .object({
    mode: z
      .enum(['pause', 'hibernate'])
      .default('hibernate')
      .meta({ description: 'hibernate: capsules can wake on any host; pause: only on this one, after it is back.' }),
  })
  .meta({ id: 'DrainHostRequest' });
