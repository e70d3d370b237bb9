import { timingSafeEqual } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import type { TeamRole } from '@wrenn/protocol/rest/teams';
import { and, eq, gt, isNull, or, sql } from 'drizzle-orm';
import type { KeyHolder } from '../access/principal.ts';
import type { Db } from '../database/database.ts';
import { apiKeys, teamMembers, teams, users } from '../database/people-schema.ts';
import { preparedOnce } from '../database/prepared.ts';
import { hashKey } from './new-key.ts';

/** A team's own key does what an admin's would, as far as keys reach. */
const TEAM_KEY_ROLE: TeamRole = 'admin';

/**
 * Whom a key stands for now. `wrn_` and `e2b_` before the same characters are the same key.
 *
 * @param keyBody its 40 hex characters
 * @throws WrennError `unauthorized` when it is unknown, revoked or expired, or its team or its owner's membership ended
 */
export async function findKeyHolder(db: Db, keyBody: string): Promise<KeyHolder> {
  const hash = hashKey(keyBody);
  const [row] = await queryOf(db).execute({ hash });
  // The index found it by a hash, so its timing tells nothing about the key; this compares all of it once more.
  if (!row || !timingSafeEqual(Buffer.from(row.hash), Buffer.from(hash))) throw new WrennError('unauthorized');
  const { id, name, userId, teamId, scopes } = row;
  const role = userId === null ? TEAM_KEY_ROLE : row.role;
  if (!role || (userId !== null && row.userStatus !== 'active')) throw new WrennError('unauthorized');
  return {
    type: 'api_key',
    id,
    name,
    userId: userId ?? undefined,
    team: { id: teamId, role },
    scopes: scopes ?? undefined,
  };
}

const queryOf = preparedOnce((db) =>
  db
    .select({
      id: apiKeys.id,
      name: apiKeys.name,
      hash: apiKeys.keyHash,
      teamId: apiKeys.teamId,
      userId: apiKeys.userId,
      scopes: apiKeys.scopes,
      role: teamMembers.role,
      userStatus: users.status,
    })
    .from(apiKeys)
    .innerJoin(teams, and(eq(teams.id, apiKeys.teamId), isNull(teams.deletedAt)))
    .leftJoin(users, eq(users.id, apiKeys.userId))
    .leftJoin(teamMembers, and(eq(teamMembers.teamId, apiKeys.teamId), eq(teamMembers.userId, apiKeys.userId)))
    .where(
      and(
        eq(apiKeys.keyHash, sql.placeholder('hash')),
        isNull(apiKeys.revokedAt),
        or(isNull(apiKeys.expiresAt), gt(apiKeys.expiresAt, sql`now()`)),
      ),
    )
    .prepare('find_key_holder'),
);
