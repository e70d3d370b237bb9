import { createHash, randomBytes } from 'node:crypto';
import { and, eq, gt, lt } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { oneTimeTokens } from '../database/people-schema.ts';

export type TokenPurpose =
  | 'activation'
  | 'password_reset'
  | 'two_factor'
  | 'oauth_state'
  | 'login_code'
  | 'passkey_login'
  | 'passkey_registration'
  | 'host_registration';

export interface NewToken {
  readonly purpose: TokenPurpose;
  /** What it is about: the id of a user, say. */
  readonly subject: string;
  readonly data?: Record<string, unknown>;
  readonly lifetimeMs: number;
}

export interface TakenToken {
  readonly subject: string;
  readonly data: Record<string, unknown>;
}

export function hashToken(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** 256 random bits for a link, or for a command: hexadecimal, since one that began with "-" would be an option there. */
export function newToken(): string {
  return randomBytes(32).toString('hex');
}

/** Makes a token that works once. Only its hash is kept. */
export async function putToken(db: Db, { purpose, subject, data = {}, lifetimeMs }: NewToken): Promise<string> {
  const token = newToken();
  const expiresAt = new Date(Date.now() + lifetimeMs);
  await db.insert(oneTimeTokens).values({ tokenHash: hashToken(token), purpose, subject, data, expiresAt });
  return token;
}

/** Takes a token out: of several at once, one gets it. Undefined when there is none that still holds. */
export async function takeToken(db: Db, purpose: TokenPurpose, token: string): Promise<TakenToken | undefined> {
  const [taken] = await db
    .delete(oneTimeTokens)
    .where(and(eq(oneTimeTokens.tokenHash, hashToken(token)), eq(oneTimeTokens.purpose, purpose)))
    .returning();
  if (!taken || taken.expiresAt.getTime() <= Date.now()) return undefined;
  return { subject: taken.subject, data: taken.data };
}

/** What a token is for, without taking it. */
export async function peekToken(db: Db, purpose: TokenPurpose, token: string): Promise<TakenToken | undefined> {
  const [found] = await db
    .select()
    .from(oneTimeTokens)
    .where(
      and(
        eq(oneTimeTokens.tokenHash, hashToken(token)),
        eq(oneTimeTokens.purpose, purpose),
        gt(oneTimeTokens.expiresAt, new Date()),
      ),
    );
  return found && { subject: found.subject, data: found.data };
}

/** Takes back all tokens of a kind for a subject: a newer one replaces them. */
export async function revokeTokens(db: Db, purpose: TokenPurpose, subject: string): Promise<void> {
  await db.delete(oneTimeTokens).where(and(eq(oneTimeTokens.purpose, purpose), eq(oneTimeTokens.subject, subject)));
}

/** @returns how many had expired */
export async function pruneTokens(db: Db): Promise<number> {
  const gone = await db.delete(oneTimeTokens).where(lt(oneTimeTokens.expiresAt, new Date()));
  return gone.rowCount ?? 0;
}
