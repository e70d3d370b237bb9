import type { MemberBody, TeamBody } from '@wrenn/protocol/rest/teams';
import type { Member, TeamOfMember } from './team-store.ts';

export function toTeamBody({ team, role, isDefault }: TeamOfMember): TeamBody {
  return {
    id: team.id,
    name: team.name,
    slug: team.slug,
    is_byoc: team.isByoc,
    created_at: team.createdAt.toISOString(),
    role,
    is_default: isDefault,
  };
}

export function toMemberBody({ userId, name, email, role, joinedAt }: Member): MemberBody {
  return { user_id: userId, name, email, role, joined_at: joinedAt.toISOString() };
}
