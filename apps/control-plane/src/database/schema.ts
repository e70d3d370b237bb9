import { CAPSULE_STATUSES, type CapsuleTrace, TIMEOUT_ACTIONS } from '@wrenn/protocol/rest/capsule';
import { bigint, boolean, integer, jsonb, pgTable, text } from 'drizzle-orm/pg-core';
import type { Actor } from '../access/actor.ts';
import { bytes, instant } from './columns.ts';

type StringMap = Record<string, string>;

export const capsules = pgTable('capsules', {
  id: text().primaryKey(),
  teamId: text('team_id').notNull(),
  hostId: text('host_id').notNull(),
  template: text().notNull(),
  /** Tags that its host must have. */
  hostTags: text('host_tags').array().notNull().default([]),
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
  /** Number of the last complete generation of its snapshot; 0 until it first slept. */
  generation: integer().notNull().default(0),
  sleptAt: instant('slept_at'),
  /** Bytes on the host's disk that this generation alone holds. */
  snapshotBytes: bigint('snapshot_bytes', { mode: 'number' }),
  /** Why that generation cannot be resumed as it is, as far as its host knows. */
  snapshotProblem: text('snapshot_problem'),
  /** Where the generation is in the object store. */
  objectKey: text('object_key'),
  /** Its last start booted the disk without the memory that it slept with. */
  memoryDiscarded: boolean('memory_discarded').notNull().default(false),
  onTimeout: text('on_timeout', { enum: TIMEOUT_ACTIONS }).notNull().default('pause'),
  autoResume: boolean('auto_resume').notNull().default(false),
  /** When it is paused or destroyed whatever it does. */
  deadlineAt: instant('deadline_at'),
  /** The snapshot that it was made of, in place of its template's own. */
  snapshotId: text('snapshot_id'),
  /** The capsule that it was forked from. */
  forkedFrom: text('forked_from'),
  /** The timeline of its last create, resume or fork. */
  trace: jsonb().$type<CapsuleTrace>(),
  createdAt: instant('created_at').notNull().defaultNow(),
  startedAt: instant('started_at'),
  lastActiveAt: instant('last_active_at'),
  updatedAt: instant('updated_at').notNull().defaultNow(),
});

export type Capsule = typeof capsules.$inferSelect;
export type NewCapsule = typeof capsules.$inferInsert;

export const SNAPSHOT_STATUSES = ['making', 'ready', 'deleting'] as const;

/** Templates that were made of capsules. */
export const snapshots = pgTable('snapshots', {
  id: text().primaryKey(),
  teamId: text('team_id').notNull(),
  hostId: text('host_id').notNull(),
  /** Unique in its team. */
  name: text().notNull(),
  status: text({ enum: SNAPSHOT_STATUSES }).notNull(),
  /** The template of the capsule that it was made of. */
  template: text().notNull(),
  capsuleId: text('capsule_id').notNull(),
  vcpus: integer().notNull(),
  memoryMb: integer('memory_mb').notNull(),
  diskMb: integer('disk_mb').notNull(),
  envs: jsonb().$type<StringMap>().notNull(),
  sizeBytes: bigint('size_bytes', { mode: 'number' }),
  /** Where it is in the object store; null: only its host has it. */
  objectKey: text('object_key'),
  /** Other hosts that have fetched it, or were about to. */
  copies: text().array().notNull().default([]),
  createdAt: instant('created_at').notNull().defaultNow(),
});

export type Snapshot = typeof snapshots.$inferSelect;

/** What is still to be removed from the object store. */
export const objectDeletions = pgTable('object_deletions', {
  /** As HibernateVm was given it. */
  objectKey: text('object_key').primaryKey(),
  createdAt: instant('created_at').notNull().defaultNow(),
});

export const OPERATION_KINDS = [
  'capsule.create',
  'capsule.destroy',
  'capsule.pause',
  'capsule.resume',
  'capsule.fork',
  'capsule.snapshot',
  'capsule.hibernate',
] as const;
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
  /** The same as people are told of it; null: the platform itself. */
  askedBy: jsonb('asked_by').$type<Actor>(),
  idempotencyKey: text('idempotency_key'),
  /** SHA-256 of the request, to tell a retry from another request with the same idempotency key. */
  requestHash: text('request_hash'),
  state: text({ enum: OPERATION_STATES }).notNull(),
  /** Name of the step that it is at. */
  step: text().notNull(),
  /** What was asked beyond the capsule, as its kind needs it. */
  args: jsonb().$type<Record<string, unknown>>().notNull().default({}),
  result: jsonb().$type<Record<string, unknown>>(),
  error: jsonb().$type<StoredError>(),
  /** Which control plane runs it: the number whose advisory lock that one holds as long as it lives. */
  owner: bigint({ mode: 'number' }).notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
  finishedAt: instant('finished_at'),
});

export type Operation = typeof operations.$inferSelect;
