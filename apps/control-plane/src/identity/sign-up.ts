import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import { eq } from 'drizzle-orm';
import type { Actor } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import { type User, users } from '../database/people-schema.ts';
import { findPendingInvitation } from '../teams/invitation-store.ts';
import { putToken, revokeTokens } from '../tokens/one-time-tokens.ts';
import { as, recordOnAccount } from './account-audit.ts';
import type { AccountDeps } from './account-deps.ts';
import { inUniformTime } from './uniform-time.ts';
import { isSameAddress, lockUserByEmail } from './user-store.ts';

/** How long an activation mail holds, and how long nobody else can sign up with its address. */
const ACTIVATION_MS = 30 * 60_000;

export interface SignUp {
  readonly email: string;
  readonly password: string;
  readonly name: string;
  /** Token of an invitation to a team. */
  readonly invitation?: string | undefined;
}

/**
 * Makes an account that a mail must activate. Whether the address has an account already is told to the address only,
 * by mail.
 *
 * @returns what to tell whoever asked
 * @throws WrennError `sign_up_closed`, `rate_limited`
 */
export async function signUp(deps: AccountDeps, someone: Actor, request: SignUp): Promise<string> {
  const { db, passwords, settings } = deps;
  if (settings.signUp === 'invited') await requireInvitation(db, request);
  await inUniformTime(async () => {
    const passwordHash = await passwords.hash(request.password);
    await db.transaction((tx) => enter(tx, deps, someone, request, passwordHash));
  });
  return settings.smtp
    ? 'A mail is on its way to that address. Its link activates the account; it holds for 30 minutes.'
    : 'This platform sends no mail: ask its administrator for the link that activates the account. It holds for 30 minutes.';
}

async function requireInvitation(db: Db, { invitation, email }: SignUp): Promise<void> {
  const found = invitation === undefined ? undefined : await findPendingInvitation(db, invitation);
  const wanted = found?.invitation.email;
  if (!found || (wanted && !isSameAddress(wanted, email))) throw new WrennError('sign_up_closed');
}

async function enter(tx: Db, deps: AccountDeps, someone: Actor, request: SignUp, passwordHash: string): Promise<void> {
  const { email, name, invitation } = request;
  const existing = await lockUserByEmail(tx, email);
  if (existing && !(await makeRoom(tx, deps, someone, existing))) return;
  const [user] = await tx
    .insert(users)
    .values({ id: newId('usr'), email, name, status: 'inactive', passwordHash })
    .onConflictDoNothing()
    .returning();
  // Else the same address signed up at this moment, and that one gets the mail.
  if (!user) return;
  const token = await putToken(tx, {
    purpose: 'activation',
    subject: user.id,
    data: invitation === undefined ? {} : { invitation },
    lifetimeMs: ACTIVATION_MS,
  });
  const expiresAt = new Date(Date.now() + ACTIVATION_MS);
  await deps.mail.send(tx, { to: email, kind: 'activation', name, link: `/activate?token=${token}`, expiresAt });
  await recordOnAccount(tx, as(user, someone), user.id, 'sign_up', { method: 'password' });
}

/** @returns whether the address is free now */
async function makeRoom(tx: Db, deps: AccountDeps, someone: Actor, existing: User): Promise<boolean> {
  if (existing.status === 'inactive' && existing.createdAt.getTime() < Date.now() - ACTIVATION_MS) {
    await revokeTokens(tx, 'activation', existing.id);
    await tx.delete(users).where(eq(users.id, existing.id));
    return true;
  }
  const metadata = { account: existing.status };
  await recordOnAccount(tx, someone, existing.id, 'sign_up', metadata, 'warning');
  if (existing.status === 'active') {
    await deps.mail.send(tx, { to: existing.email, kind: 'sign_up_existing', name: existing.name, link: '/login' });
  }
  return false;
}
