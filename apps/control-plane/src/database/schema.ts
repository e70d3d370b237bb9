import { CAPSULE_STATUSES } from '@wrenn/protocol/rest/capsule';
import { bigint, customType, integer, jsonb, pgTable, text, timestamp } from 'drizzle-orm/pg-core';

const instant = (name: string) => timestamp(name, { withTimezone: true, mode: 'date' });
const bytes = customType<{ data: Buffer }>({ dataType: () => 'bytea' });

type StringMap = Record<string, string>;

export const teams = pgTable('teams', {
  id: text().primaryKey(),
  name: text().notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
});

export const apiKeys = pgTable('api_keys', {
  id: text().primaryKey(),
  teamId: text('team_id').notNull(),
  name: text().notNull(),
  /** SHA-256, in hex, of the key's 40 hex characters, so that both spellings are one key. */
  keyHash: text('key_hash').notNull(),
  /** First characters, to tell keys apart. */
  keyPrefix: text('key_prefix').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
});

export const HOST_STATUSES = ['pending', 'online', 'unreachable', 'draining', 'deleted'] as const;

export const hosts = pgTable('hosts', {
  id: text().primaryKey(),
  /** URL of the agent. */
  address: text().notNull(),
  status: text({ enum: HOST_STATUSES }).notNull(),
  agentVersion: text('agent_version'),
  lastSeenAt: instant('last_seen_at'),
  createdAt: instant('created_at').notNull().defaultNow(),
});

export const capsules = pgTable('capsules', {
  id: text().primaryKey(),
  teamId: text('team_id').notNull(),
  hostId: text('host_id').notNull(),
  template: text().notNull(),
  /** Written by capsules/transition.ts only. */
  status: text({ enum: CAPSULE_STATUSES }).notNull(),
  /** Grows with each change of status. */
  version: integer().notNull().default(1),
  statusReason: text('status_reason'),
  vcpus: integer().notNull(),
  memoryMb: integer('memory_mb').notNull(),
  /** As asked for; 0 is the template's default. */
  diskRequestMb: integer('disk_request_mb').notNull(),
  /** As the host made it. */
  diskMb: integer('disk_mb'),
  timeoutSec: integer('timeout_sec').notNull(),
  envs: jsonb().$type<StringMap>().notNull(),
  labels: jsonb().$type<StringMap>().notNull(),
  versions: jsonb().$type<StringMap>().notNull(),
  guestIp: text('guest_ip'),
  hostIp: text('host_ip'),
  /** What envd demands of every request. */
  accessToken: text('access_token').notNull(),
  /** Last bytes of the console of a microVM that ended by itself; its host keeps nothing of it. */
  consoleTail: bytes('console_tail'),
  createdAt: instant('created_at').notNull().defaultNow(),
  startedAt: instant('started_at'),
  lastActiveAt: instant('last_active_at'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
});

export type Capsule = typeof capsules.$inferSelect;
export type NewCapsule = typeof capsules.$inferInsert;

export const OPERATION_KINDS = ['capsule.create', 'capsule.destroy'] as const;
export const OPERATION_STATES = ['running', 'succeeded', 'failed'] as const;

export type OperationKind = (typeof OPERATION_KINDS)[number];

/** An error of the catalogue as a row keeps it. */
export interface StoredError {
  code: string;
  details: Record<string, string | number>;
}

export const operations = pgTable('operations', {
  id: text().primaryKey(),
  teamId: text('team_id').notNull(),
  capsuleId: text('capsule_id').notNull(),
  kind: text({ enum: OPERATION_KINDS }).notNull(),
  /** Who asked: the id of an API key, or `system`. */
  actor: text().notNull(),
  idempotencyKey: text('idempotency_key'),
  /** SHA-256 of the request, to tell a retry from another request with the same idempotency key. */
  requestHash: text('request_hash'),
  state: text({ enum: OPERATION_STATES }).notNull(),
  /** Name of the step that it is at. */
  step: text().notNull(),
  error: jsonb().$type<StoredError>(),
  /** Which control plane runs it: the number whose advisory lock that one holds as long as it lives. */
  owner: bigint({ mode: 'number' }).notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
  finishedAt: instant('finished_at'),
});

export type Operation = typeof operations.$inferSelect;
