import { WrennError } from '@wrenn/protocol/errors';
import { eq } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import type { SignedInUser } from '../access/principal.ts';
import { users } from '../database/people-schema.ts';
import { revokeTokens } from '../tokens/one-time-tokens.ts';
import { recordOnAccount } from './account-audit.ts';
import type { AccountDeps } from './account-deps.ts';
import { checkPassword } from './password-check.ts';
import { revokeSessions } from './sessions.ts';
import { findUser, updateUser } from './user-store.ts';

export interface PasswordChange {
  readonly currentPassword: string | undefined;
  readonly newPassword: string;
  /** The new one again, where there was none. */
  readonly confirmPassword: string | undefined;
}

/**
 * Changes the password of an account, or gives it its first. All its other sessions end.
 *
 * @throws WrennError `wrong_password`, `invalid_request`, `rate_limited`
 */
export async function changePassword(
  deps: AccountDeps,
  { id, sessionId }: SignedInUser,
  actor: Actor,
  change: PasswordChange,
): Promise<void> {
  const { db, mail, passwords } = deps;
  const before = await checkChange(deps, id, actor, change);
  const passwordHash = await passwords.hash(change.newPassword);
  await db.transaction(async (tx) => {
    const [locked] = await tx.select().from(users).where(eq(users.id, id)).for('update');
    // Of two changes at once with the same old password, one wins.
    if (!locked || locked.passwordHash !== before) throw new WrennError('wrong_password');
    const user = await updateUser(tx, id, 'active', { passwordHash });
    if (!user) throw new WrennError('account_deactivated');
    await revokeTokens(tx, 'password_reset', id);
    await revokeTokens(tx, 'two_factor', id);
    const ended = await revokeSessions(tx, id, sessionId);
    const isFirst = before === null;
    await mail.send(tx, { to: user.email, kind: isFirst ? 'password_added' : 'password_changed', name: user.name });
    const action = isFirst ? 'password_set' : 'password_change';
    await recordOnAccount(tx, actor, id, action, { ended_sessions: ended });
  });
}

/** @returns the hash that the account has now */
async function checkChange(
  deps: AccountDeps,
  userId: string,
  actor: Actor,
  { currentPassword, newPassword, confirmPassword }: PasswordChange,
): Promise<string | null> {
  const user = await findUser(deps.db, userId);
  if (user?.passwordHash === null) {
    if (confirmPassword === newPassword) return null;
    throw new WrennError('invalid_request', { problem: 'confirm_password: must be the new password again' });
  }
  if (currentPassword === undefined) throw new WrennError('wrong_password');
  const check = await checkPassword(deps, { userId }, currentPassword);
  if (check.is === 'right') return check.passwordHash;
  await recordOnAccount(deps.db, actor, userId, 'password_change', { reason: 'wrong_password' }, 'error');
  throw new WrennError('wrong_password');
}
