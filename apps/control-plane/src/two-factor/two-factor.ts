import { WrennError } from '@wrenn/protocol/errors';
import { and, eq, isNull, sql } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import type { SignedInUser } from '../access/principal.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import { users } from '../database/people-schema.ts';
import type { RouteDeps } from '../http/route-deps.ts';
import { forgetFailures } from '../identity/lock-out.ts';
import { removeRecoveryCodes, replaceRecoveryCodes } from './recovery-codes.ts';
import { demandSecondFactor, type SecondFactorDeps, totpPlace } from './second-factor.ts';
import { newTotpSecret, totpStep, totpUri } from './totp.ts';

export type TwoFactorDeps = SecondFactorDeps & Pick<RouteDeps, 'mail'>;

/** What an authenticator is set up with. */
export interface TwoFactorSetup {
  /** In base32. */
  readonly secret: string;
  /** What a QR code of it says. */
  readonly uri: string;
}

/**
 * Begins to set up an authenticator, or begins anew. Nothing changes for logins before a code of it has confirmed it.
 *
 * @param issuer the platform, as the authenticator shows it
 * @throws WrennError `two_factor_on`
 */
export async function beginTwoFactor(
  { db, secrets }: TwoFactorDeps,
  user: SignedInUser,
  issuer: string,
): Promise<TwoFactorSetup> {
  const secret = newTotpSecret();
  const begun = await db
    .update(users)
    .set({ totpSecret: secrets.keyRing.encrypt(secret, totpPlace(user.id)), totpLastStep: null, updatedAt: sql`now()` })
    .where(and(eq(users.id, user.id), isNull(users.totpConfirmedAt)))
    .returning({ id: users.id });
  if (begun.length === 0) throw new WrennError('two_factor_on');
  return { secret, uri: totpUri(secret, issuer, user.email) };
}

/**
 * Switches two-factor authentication on, once a code shows that the authenticator works.
 *
 * @returns recovery codes, which are told here only
 * @throws WrennError `wrong_code`, `two_factor_on`, `two_factor_off` when nothing was begun
 */
export function confirmTwoFactor(
  deps: TwoFactorDeps,
  user: SignedInUser,
  actor: Actor,
  code: string,
): Promise<string[]> {
  return deps.db.transaction(async (tx) => {
    const [row] = await tx.select().from(users).where(eq(users.id, user.id)).for('update');
    if (!row?.totpSecret) throw new WrennError('two_factor_off');
    if (row.totpConfirmedAt) throw new WrennError('two_factor_on');
    const secret = deps.secrets.keyRing.decrypt(row.totpSecret, totpPlace(user.id));
    const step = totpStep(secret, code.replace(/\s/g, ''), Date.now());
    if (step === undefined) throw new WrennError('wrong_code');
    await tx
      .update(users)
      .set({ totpConfirmedAt: sql`now()`, totpLastStep: step, updatedAt: sql`now()` })
      .where(eq(users.id, user.id));
    const codes = await replaceRecoveryCodes(tx, user.id);
    await tellOfChange(tx, deps, user, actor, 'enable');
    return codes;
  });
}

/**
 * Switches it off.
 *
 * @param code of the authenticator, or a recovery code
 * @throws WrennError `wrong_code`, `two_factor_off`, `rate_limited` when the account is locked
 */
export function disableTwoFactor(deps: TwoFactorDeps, user: SignedInUser, actor: Actor, code: string): Promise<void> {
  return demandSecondFactor(deps, user.id, actor, code, async (tx) => {
    await tx
      .update(users)
      .set({ totpSecret: null, totpConfirmedAt: null, totpLastStep: null, updatedAt: sql`now()` })
      .where(eq(users.id, user.id));
    await removeRecoveryCodes(tx, user.id);
    await forgetFailures(tx, user.id);
    await tellOfChange(tx, deps, user, actor, 'disable');
  });
}

/** New recovery codes; the old ones work no more. @throws WrennError as `disableTwoFactor` */
export function renewRecoveryCodes(
  deps: TwoFactorDeps,
  user: SignedInUser,
  actor: Actor,
  code: string,
): Promise<string[]> {
  return demandSecondFactor(deps, user.id, actor, code, async (tx) => {
    const codes = await replaceRecoveryCodes(tx, user.id);
    await forgetFailures(tx, user.id);
    await tellOfChange(tx, deps, user, actor, 'renew_recovery_codes');
    return codes;
  });
}

async function tellOfChange(
  tx: Db,
  { mail }: TwoFactorDeps,
  user: SignedInUser,
  actor: Actor,
  action: 'enable' | 'disable' | 'renew_recovery_codes',
): Promise<void> {
  await recordAudit(tx, {
    teamId: undefined,
    actor,
    resourceType: 'two_factor',
    resourceId: user.id,
    action,
    scope: 'platform',
    status: 'success',
  });
  await mail.send(tx, { to: user.email, kind: 'two_factor_changed', name: user.name });
}
