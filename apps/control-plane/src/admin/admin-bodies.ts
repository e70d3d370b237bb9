import type { adminTeamSchema, adminUserSchema, NumberedPage } from '@wrenn/protocol/rest/admin';
import type { z } from 'zod';
import type { TeamWithFacts, UserWithFacts } from './admin-store.ts';

export function toAdminTeamBody({ team, ...facts }: TeamWithFacts): z.input<typeof adminTeamSchema> {
  return {
    id: team.id,
    name: team.name,
    slug: team.slug,
    is_byoc: team.isByoc,
    created_at: team.createdAt.toISOString(),
    deleted_at: team.deletedAt?.toISOString() ?? null,
    member_count: facts.memberCount,
    owner_name: facts.ownerName,
    owner_email: facts.ownerEmail,
    active_sandbox_count: facts.capsuleCount,
    channel_count: facts.channelCount,
  };
}

export function toAdminUserBody({ user, joined, owned }: UserWithFacts): z.input<typeof adminUserSchema> {
  return {
    id: user.id,
    email: user.email,
    name: user.name,
    is_admin: user.isAdmin,
    status: user.status,
    created_at: user.createdAt.toISOString(),
    last_login_at: user.lastLoginAt?.toISOString() ?? null,
    deleted_at: user.deletedAt?.toISOString() ?? null,
    teams_joined: joined,
    teams_owned: owned,
  };
}

/** What a numbered page says of itself. */
export function pageFacts({ page, per_page }: NumberedPage, total: number) {
  return { total, page, per_page, total_pages: Math.ceil(total / per_page) };
}
