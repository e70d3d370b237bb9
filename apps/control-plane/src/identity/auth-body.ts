import type { AuthBody } from '@wrenn/protocol/rest/auth';
import type { Session, User } from '../database/people-schema.ts';
import type { OwnTeam } from './login-team.ts';
import { signSessionToken } from './session-token.ts';

/** What a login, a change of the team and a change of the name answer: a new token of the session. */
export async function toAuthBody(
  jwtSecret: Uint8Array,
  session: Pick<Session, 'id' | 'expiresAt'>,
  user: Pick<User, 'id' | 'name' | 'email' | 'isAdmin'>,
  team: OwnTeam | undefined,
): Promise<AuthBody> {
  const { name, email, isAdmin } = user;
  const token = await signSessionToken(
    jwtSecret,
    { userId: user.id, sessionId: session.id, teamId: team?.id },
    { name, email, role: team?.role, isAdmin },
    session.expiresAt,
  );
  return {
    token,
    user_id: user.id,
    team_id: team?.id ?? null,
    role: team?.role ?? null,
    email,
    name,
    is_admin: isAdmin,
    session_id: session.id,
    expires_at: session.expiresAt.toISOString(),
  };
}
