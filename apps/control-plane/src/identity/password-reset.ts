import { WrennError } from '@wrenn/protocol/errors';
import type { Actor } from '../access/actor.ts';
import { peekToken, putToken, revokeTokens, takeToken } from '../tokens/one-time-tokens.ts';
import { as, recordOnAccount } from './account-audit.ts';
import type { AccountDeps } from './account-deps.ts';
import { revokeSessions } from './sessions.ts';
import { inUniformTime } from './uniform-time.ts';
import { lockUser, lockUserByEmail, updateUser } from './user-store.ts';

const RESET_MS = 15 * 60_000;

/** Mails a link for a new password to an address that has an active account, locked or not. Tells nobody else. */
export async function requestReset({ db, mail }: AccountDeps, someone: Actor, email: string): Promise<void> {
  await inUniformTime(() =>
    db.transaction(async (tx) => {
      const user = await lockUserByEmail(tx, email);
      if (user?.status !== 'active') return;
      await revokeTokens(tx, 'password_reset', user.id);
      const token = await putToken(tx, { purpose: 'password_reset', subject: user.id, lifetimeMs: RESET_MS });
      const expiresAt = new Date(Date.now() + RESET_MS);
      const link = `/reset-password?token=${token}`;
      await mail.send(tx, { to: user.email, kind: 'password_reset', name: user.name, link, expiresAt });
      await recordOnAccount(tx, someone, user.id, 'password_reset_request', {}, 'info');
    }),
  );
}

/**
 * Sets a new password by a token of a mail. Ends the lock and all sessions of the account.
 *
 * @throws WrennError `invalid_token`, `rate_limited`
 */
export async function confirmReset(
  { db, mail, passwords }: AccountDeps,
  someone: Actor,
  token: string,
  newPassword: string,
): Promise<void> {
  // Hashing is not done for whoever asks.
  const found = await peekToken(db, 'password_reset', token);
  if (!found) throw new WrennError('invalid_token');
  const passwordHash = await passwords.hash(newPassword);
  await db.transaction(async (tx) => {
    await lockUser(tx, found.subject);
    const taken = await takeToken(tx, 'password_reset', token);
    const change = { passwordHash, failedLogins: 0, lockedUntil: null };
    const user = taken && (await updateUser(tx, taken.subject, 'active', change));
    if (!user) throw new WrennError('invalid_token');
    await revokeTokens(tx, 'two_factor', user.id);
    const ended = await revokeSessions(tx, user.id);
    await mail.send(tx, { to: user.email, kind: 'reset_completed', name: user.name });
    await recordOnAccount(tx, as(user, someone), user.id, 'password_reset', { ended_sessions: ended });
  });
}
