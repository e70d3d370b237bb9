import { WrennError } from '@wrenn/protocol/errors';
import { eq, sql } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { type User, users } from '../database/people-schema.ts';
import type { RouteDeps } from '../http/route-deps.ts';
import { beginAttempt } from '../identity/lock-out.ts';
import { findUser } from '../identity/user-store.ts';
import type { KeyRing } from '../secrets/key-ring.ts';
import { countRecoveryCodes, takeRecoveryCode } from './recovery-codes.ts';
import { totpStep } from './totp.ts';

/** What codes are taken with. */
export type SecondFactorDeps = Pick<RouteDeps, 'db' | 'secrets'>;

/** Where a user's secret stands, for its encryption. */
export function totpPlace(userId: string): string {
  return `user:${userId}:totp`;
}

/**
 * Does something that needs a code of a user whose two-factor authentication is on, in the transaction that takes the
 * code: of several requests with one code, one gets it, and the code is as new when that fails. A wrong code counts
 * for the lock of the account; who calls this forgets the failures of an account whose code was right.
 *
 * @param code of the authenticator, or a recovery code, as typed
 * @throws WrennError `wrong_code`, `two_factor_off`, `rate_limited` when the account is locked
 */
export async function demandSecondFactor<T>(
  { db, secrets }: SecondFactorDeps,
  userId: string,
  actor: Actor,
  code: string,
  work: (tx: Db) => Promise<T>,
): Promise<T> {
  if (!(await beginAttempt(db, { userId }))) throw await lockedFor(db, userId);
  return db.transaction(async (tx) => {
    const [user] = await tx.select().from(users).where(eq(users.id, userId)).for('update');
    if (!user?.totpSecret || !user.totpConfirmedAt) throw new WrennError('two_factor_off');
    const typed = code.replace(/\s/g, '');
    if (/^\d{6}$/.test(typed)) await takeTotp(tx, secrets.keyRing, user, user.totpSecret, typed);
    else await takeRecovery(tx, user, actor, typed);
    return work(tx);
  });
}

async function lockedFor(db: Db, userId: string): Promise<WrennError> {
  const user = await findUser(db, userId);
  const leftMs = (user?.lockedUntil?.getTime() ?? 0) - Date.now();
  return new WrennError('rate_limited', { retry_after_s: Math.max(1, Math.ceil(leftMs / 1000)) });
}

async function takeTotp(tx: Db, keyRing: KeyRing, user: User, sealed: string, code: string): Promise<void> {
  const secret = keyRing.decrypt(sealed, totpPlace(user.id));
  const step = totpStep(secret, code, Date.now());
  if (step === undefined || (user.totpLastStep !== null && step <= user.totpLastStep))
    throw new WrennError('wrong_code');
  // Used anyway, it is encrypted with the newest key.
  const totpSecret = keyRing.isStale(sealed) ? keyRing.encrypt(secret, totpPlace(user.id)) : sealed;
  await tx.update(users).set({ totpSecret, totpLastStep: step, updatedAt: sql`now()` }).where(eq(users.id, user.id));
}

async function takeRecovery(tx: Db, user: User, actor: Actor, code: string): Promise<void> {
  if (!(await takeRecoveryCode(tx, user.id, code))) throw new WrennError('wrong_code');
  await recordAudit(tx, {
    teamId: undefined,
    actor,
    resourceType: 'two_factor',
    resourceId: user.id,
    action: 'use_recovery_code',
    scope: 'platform',
    status: 'warning',
    metadata: { left: await countRecoveryCodes(tx, user.id) },
  });
}
