import { HOST_STATUSES, HOST_TYPES } from '@wrenn/protocol/rest/hosts';
import { bigint, integer, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { instant } from './columns.ts';

const bigNumber = (name: string) => bigint(name, { mode: 'number' });

/** Where two hosts would have one address. */
export const ADDRESS_INDEX = 'hosts_address';

export const hosts = pgTable('hosts', {
  id: text().primaryKey(),
  /** URL of the agent; null: it was never registered, or it connects to the control plane. */
  address: text(),
  status: text({ enum: HOST_STATUSES }).notNull(),
  agentVersion: text('agent_version'),
  lastSeenAt: instant('last_seen_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
  type: text({ enum: HOST_TYPES }).notNull().default('regular'),
  /** Whose host it is; null: the platform's. */
  teamId: text('team_id'),
  provider: text(),
  availabilityZone: text('availability_zone'),
  connection: text({ enum: ['inbound', 'outbound'] })
    .notNull()
    .default('inbound'),
  arch: text(),
  cpuCount: integer('cpu_count'),
  memoryMb: integer('memory_mb'),
  memoryFreeMb: integer('memory_free_mb'),
  diskMb: bigNumber('disk_mb'),
  diskFreeMb: bigNumber('disk_free_mb'),
  hypervisor: text(),
  hypervisorVersion: text('hypervisor_version'),
  accelerator: text(),
  kernelVersion: text('kernel_version'),
  /** What memory saved there needs of a CPU to go on. */
  cpu: text(),
  /** Which object store it uses; null: not known. */
  objectStore: text('object_store'),
  templates: text().array().notNull().default([]),
  /** SHA-256, in hex, of its certificate. */
  certFingerprint: text('cert_fingerprint'),
  certExpiresAt: instant('cert_expires_at'),
  lastHeartbeatAt: instant('last_heartbeat_at'),
  /** Since then it gets no new capsules. */
  cordonedAt: instant('cordoned_at'),
  /** Of the agent's process whose heartbeats count now. */
  bootId: text('boot_id'),
  /** Of those before it, the newest first. */
  pastBootIds: text('past_boot_ids').array().notNull().default([]),
  /** Of its last heartbeat, by which copies of it are known. */
  heartbeatSequence: bigNumber('heartbeat_sequence'),
  heartbeatSentAt: instant('heartbeat_sent_at'),
  /** When it was last told that two agents use its credentials. */
  sharedAt: instant('shared_at'),
  /** How far the clock of the host is ahead of this platform's. */
  clockOffsetMs: bigNumber('clock_offset_ms'),
  /** How its capsules are put to sleep, as long as it is being drained. */
  drainMode: text('drain_mode', { enum: ['pause', 'hibernate'] }),
  /** Why it cannot be used although it answers. */
  problem: text(),
  /** How many microVMs its last heartbeat told of that are nobody's capsule. They are left alone. */
  unknownVms: integer('unknown_vms').notNull().default(0),
  createdBy: text('created_by'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
  deletedAt: instant('deleted_at'),
});

export type HostRow = typeof hosts.$inferSelect;

/** What became of registration tokens. The tokens themselves are one-time tokens. */
export const hostTokens = pgTable('host_tokens', {
  id: text().primaryKey(),
  hostId: text('host_id').notNull(),
  createdBy: text('created_by'),
  createdAt: instant('created_at').notNull().defaultNow(),
  expiresAt: instant('expires_at').notNull(),
  usedAt: instant('used_at'),
  /** Address that registered with it. */
  usedFrom: text('used_from'),
  /** SHA-256, in hex, of the public key that registered with it. */
  usedKey: text('used_key'),
  /** SHA-256 in hex, by which whoever has the token learns why it is refused. */
  tokenHash: text('token_hash').notNull(),
});

/** Sets of credentials: tokens of a set name its row. */
export const hostRefreshTokens = pgTable('host_refresh_tokens', {
  id: text().primaryKey(),
  hostId: text('host_id').notNull(),
  /** SHA-256 in hex. */
  tokenHash: text('token_hash').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  expiresAt: instant('expires_at').notNull(),
  /** From then on the set is refused; in the future where a newer one was made that nobody has used yet. */
  revokedAt: instant('revoked_at'),
  /** When something of the set was first used. */
  usedAt: instant('used_at'),
  /** When it was last told that somebody used it after it was revoked. */
  reusedAt: instant('reused_at'),
  certFingerprint: text('cert_fingerprint').notNull(),
  certExpiresAt: instant('cert_expires_at').notNull(),
});

/** Templates in object stores, from where hosts that share one fetch them. */
export const publishedTemplates = pgTable('published_templates', {
  objectStore: text('object_store').notNull(),
  arch: text().notNull(),
  name: text().notNull(),
  /** Whose hosts may have it; null: every team's. */
  teamId: text('team_id'),
  objectKey: text('object_key').notNull(),
  publishedAt: instant('published_at').notNull().defaultNow(),
});

export const hostTags = pgTable('host_tags', { hostId: text('host_id').notNull(), tag: text().notNull() }, (table) => [
  primaryKey({ columns: [table.hostId, table.tag] }),
]);

/** What the capsules of a host hold of it. Kept by a trigger on capsules. */
export const hostLoad = pgTable('host_load', {
  hostId: text('host_id').primaryKey(),
  running: integer().notNull().default(0),
  vcpus: integer().notNull().default(0),
  memoryMb: bigNumber('memory_mb').notNull().default(0),
  diskMb: bigNumber('disk_mb').notNull().default(0),
  asleep: integer().notNull().default(0),
  asleepMemoryMb: bigNumber('asleep_memory_mb').notNull().default(0),
  asleepDiskMb: bigNumber('asleep_disk_mb').notNull().default(0),
});

/** What the capsules of a team hold. Kept by the same trigger. */
export const teamLoad = pgTable('team_load', {
  teamId: text('team_id').primaryKey(),
  running: integer().notNull().default(0),
  vcpus: integer().notNull().default(0),
  memoryMb: bigNumber('memory_mb').notNull().default(0),
  asleep: integer().notNull().default(0),
  /** Half of each one's memory, rounded up, and then summed. */
  asleepHalfMemoryMb: bigNumber('asleep_half_memory_mb').notNull().default(0),
  diskMb: bigNumber('disk_mb').notNull().default(0),
});
