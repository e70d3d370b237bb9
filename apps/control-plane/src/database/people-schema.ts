import { KEY_SCOPES } from '@wrenn/protocol/rest/api-keys';
import { TEAM_ROLES } from '@wrenn/protocol/rest/teams';
import { bigint, boolean, integer, jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core';
import { bytes, instant } from './columns.ts';

export const teams = pgTable('teams', {
  id: text().primaryKey(),
  name: text().notNull(),
  slug: text().notNull(),
  isByoc: boolean('is_byoc').notNull().default(false),
  createdAt: instant('created_at').notNull().defaultNow(),
  /** Since then nothing of the team authenticates, counts or can be made. */
  deletedAt: instant('deleted_at'),
});

export type Team = typeof teams.$inferSelect;

/**
 * inactive: signed up and not activated; active; disabled: by an administrator; deleted: by its owner, purged after the
 * time of grace.
 */
export const USER_STATUSES = ['inactive', 'active', 'disabled', 'deleted'] as const;

export const users = pgTable('users', {
  id: text().primaryKey(),
  /** As typed; unique without regard to case. */
  email: text().notNull(),
  name: text().notNull(),
  status: text({ enum: USER_STATUSES }).notNull(),
  /** Null: the account has other ways to log in. */
  passwordHash: text('password_hash'),
  isAdmin: boolean('is_admin').notNull().default(false),
  /** Wrong passwords and codes since the last right one. */
  failedLogins: integer('failed_logins').notNull().default(0),
  lockedUntil: instant('locked_until'),
  /** Encrypted. Counts once `totpConfirmedAt` is set. */
  totpSecret: text('totp_secret'),
  totpConfirmedAt: instant('totp_confirmed_at'),
  /** Period of the last code that was taken, so that none works twice. */
  totpLastStep: bigint('totp_last_step', { mode: 'number' }),
  createdAt: instant('created_at').notNull().defaultNow(),
  updatedAt: instant('updated_at').notNull().defaultNow(),
  lastLoginAt: instant('last_login_at'),
  deletedAt: instant('deleted_at'),
});

export type User = typeof users.$inferSelect;

/** Accounts of other providers that log in to an account of ours. */
export const identities = pgTable(
  'identities',
  {
    provider: text().notNull(),
    /** The provider's own id of the account. */
    subject: text().notNull(),
    userId: text('user_id').notNull(),
    email: text(),
    createdAt: instant('created_at').notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.provider, table.subject] })],
);

export const sessions = pgTable('sessions', {
  id: text().primaryKey(),
  userId: text('user_id').notNull(),
  /** How it began: `password`, `passkey`, or the name of a provider. */
  method: text().notNull(),
  address: text(),
  userAgent: text('user_agent'),
  createdAt: instant('created_at').notNull().defaultNow(),
  lastSeenAt: instant('last_seen_at').notNull().defaultNow(),
  expiresAt: instant('expires_at').notNull(),
  revokedAt: instant('revoked_at'),
});

export type Session = typeof sessions.$inferSelect;

/** Written and taken by tokens/one-time-tokens.ts only. */
export const oneTimeTokens = pgTable('one_time_tokens', {
  /** SHA-256 in hex. */
  tokenHash: text('token_hash').primaryKey(),
  purpose: text().notNull(),
  /** What it is about: the id of a user, say. */
  subject: text().notNull(),
  data: jsonb().$type<Record<string, unknown>>().notNull().default({}),
  createdAt: instant('created_at').notNull().defaultNow(),
  expiresAt: instant('expires_at').notNull(),
});

export const recoveryCodes = pgTable(
  'recovery_codes',
  { userId: text('user_id').notNull(), codeHash: text('code_hash').notNull(), usedAt: instant('used_at') },
  (table) => [primaryKey({ columns: [table.userId, table.codeHash] })],
);

export const passkeys = pgTable('passkeys', {
  id: text().primaryKey(),
  userId: text('user_id').notNull(),
  name: text().notNull(),
  /** As WebAuthn's base64url. */
  credentialId: text('credential_id').notNull(),
  publicKey: bytes('public_key').notNull(),
  counter: bigint({ mode: 'number' }).notNull(),
  transports: text().array().notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  lastUsedAt: instant('last_used_at'),
});

/** The table of rate-limiter-flexible. */
export const rateLimits = pgTable('rate_limits', {
  key: text().primaryKey(),
  points: integer().notNull().default(0),
  /** Milliseconds since the epoch. */
  expire: bigint({ mode: 'number' }),
});

export const teamMembers = pgTable(
  'team_members',
  {
    teamId: text('team_id').notNull(),
    userId: text('user_id').notNull(),
    role: text({ enum: TEAM_ROLES }).notNull(),
    /** The team that a login of this user is for. */
    isDefault: boolean('is_default').notNull().default(false),
    createdAt: instant('created_at').notNull().defaultNow(),
  },
  (table) => [primaryKey({ columns: [table.teamId, table.userId] })],
);

export const invitations = pgTable('invitations', {
  id: text().primaryKey(),
  teamId: text('team_id').notNull(),
  /** Null: whoever has the link. */
  email: text(),
  role: text({ enum: ['admin', 'member'] }).notNull(),
  /** SHA-256 in hex. */
  tokenHash: text('token_hash').notNull(),
  invitedBy: text('invited_by'),
  createdAt: instant('created_at').notNull().defaultNow(),
  expiresAt: instant('expires_at').notNull(),
  acceptedAt: instant('accepted_at'),
  acceptedBy: text('accepted_by'),
  revokedAt: instant('revoked_at'),
});

export type Invitation = typeof invitations.$inferSelect;

export const apiKeys = pgTable('api_keys', {
  id: text().primaryKey(),
  teamId: text('team_id').notNull(),
  name: text().notNull(),
  /** SHA-256, in hex, of the key's 40 hex characters, so that both spellings are one key. */
  keyHash: text('key_hash').notNull(),
  /** First characters, to tell keys apart. */
  keyPrefix: text('key_prefix').notNull(),
  createdAt: instant('created_at').notNull().defaultNow(),
  /** A person's own key, which can do no more than that person; null: the team's. */
  userId: text('user_id'),
  createdBy: text('created_by'),
  /** Null: all of them. */
  scopes: text({ enum: KEY_SCOPES }).array(),
  expiresAt: instant('expires_at'),
  lastUsedAt: instant('last_used_at'),
  revokedAt: instant('revoked_at'),
});

export type ApiKey = typeof apiKeys.$inferSelect;
