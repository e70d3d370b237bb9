import { WrennError } from '@wrenn/protocol/errors';
import type { Actor } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import { recordOnAccount } from './account-audit.ts';
import { revokeSession, revokeSessions } from './sessions.ts';

/** Ends one session of a user. @throws WrennError `not_found` when it has ended, or is another's */
export async function endSession(
  db: Db,
  actor: Actor,
  userId: string,
  sessionId: string,
  action: 'logout' | 'session_revoke',
): Promise<void> {
  await db.transaction(async (tx) => {
    if (!(await revokeSession(tx, userId, sessionId)))
      throw new WrennError('not_found', { what: `The session ${sessionId}` });
    await recordOnAccount(tx, actor, userId, action, { session: sessionId });
  });
}

/** Ends all sessions of a user but one. */
export async function endOtherSessions(db: Db, actor: Actor, userId: string, exceptId: string): Promise<void> {
  await db.transaction(async (tx) => {
    const ended = await revokeSessions(tx, userId, exceptId);
    await recordOnAccount(tx, actor, userId, 'session_revoke', { ended_sessions: ended });
  });
}
