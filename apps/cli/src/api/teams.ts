import {
  createInvitationRequestSchema,
  type InvitationBody,
  invitationPreviewSchema,
  invitationSchema,
  type MemberBody,
  type TeamBody,
  type TeamRole,
  teamDetailSchema,
  teamListSchema,
  teamSchema,
} from '@wrenn/protocol/rest/teams';
import { z } from 'zod';
import { type ApiHttp, post, QUERY_TIMEOUT_MS, withTimeout } from './http.ts';

/** The part of the API that is about teams, their members and invitations. */
export interface TeamCalls {
  listTeams(signal: AbortSignal): Promise<TeamBody[]>;
  createTeam(name: string, signal: AbortSignal): Promise<TeamBody>;
  getTeam(id: string, signal: AbortSignal): Promise<{ team: TeamBody; members: MemberBody[] }>;
  renameTeam(id: string, name: string, signal: AbortSignal): Promise<void>;
  deleteTeam(id: string, signal: AbortSignal): Promise<void>;
  leaveTeam(id: string, signal: AbortSignal): Promise<void>;
  makeDefaultTeam(id: string, signal: AbortSignal): Promise<void>;
  transferTeam(id: string, userId: string, signal: AbortSignal): Promise<void>;
  setRole(id: string, userId: string, role: Exclude<TeamRole, 'owner'>, signal: AbortSignal): Promise<void>;
  removeMember(id: string, userId: string, signal: AbortSignal): Promise<void>;
  invite(
    id: string,
    request: z.input<typeof createInvitationRequestSchema>,
    signal: AbortSignal,
  ): Promise<InvitationBody>;
  listInvitations(id: string, signal: AbortSignal): Promise<InvitationBody[]>;
  revokeInvitation(id: string, invitationId: string, signal: AbortSignal): Promise<void>;
  previewInvitation(token: string, signal: AbortSignal): Promise<z.output<typeof invitationPreviewSchema>>;
  acceptInvitation(token: string, signal: AbortSignal): Promise<TeamBody>;
}

export function teamCalls({ json, list, send }: ApiHttp): TeamCalls {
  const path = (id: string, ...rest: string[]) => ['/v1/teams', ...[id, ...rest].map(encodeURIComponent)].join('/');
  const act = async (to: string, init: RequestInit, signal: AbortSignal) => {
    await send(to, init, withTimeout(signal, QUERY_TIMEOUT_MS));
  };
  return {
    listTeams: (signal) => list(teamListSchema, '/v1/teams', signal),
    createTeam: (name, signal) => json(teamSchema, '/v1/teams', post({ name }), signal),
    getTeam: (id, signal) => json(teamDetailSchema, path(id), {}, signal),
    renameTeam: (id, name, signal) => act(path(id), { ...post({ name }), method: 'PATCH' }, signal),
    deleteTeam: (id, signal) => act(path(id), { method: 'DELETE' }, signal),
    leaveTeam: (id, signal) => act(path(id, 'leave'), { method: 'POST' }, signal),
    makeDefaultTeam: (id, signal) => act(path(id, 'default'), { method: 'POST' }, signal),
    transferTeam: (id, userId, signal) => act(path(id, 'transfer'), post({ user_id: userId }), signal),
    setRole: (id, userId, role, signal) =>
      act(path(id, 'members', userId), { ...post({ role }), method: 'PATCH' }, signal),
    removeMember: (id, userId, signal) => act(path(id, 'members', userId), { method: 'DELETE' }, signal),
    invite: (id, request, signal) =>
      json(invitationSchema, path(id, 'invitations'), post(createInvitationRequestSchema.parse(request)), signal),
    listInvitations: (id, signal) => list(z.array(invitationSchema), path(id, 'invitations'), signal),
    revokeInvitation: (id, invitationId, signal) =>
      act(path(id, 'invitations', invitationId), { method: 'DELETE' }, signal),
    previewInvitation: (token, signal) =>
      json(invitationPreviewSchema, '/v1/invitations/preview', post({ token }), signal),
    acceptInvitation: (token, signal) => json(teamSchema, '/v1/invitations/accept', post({ token }), signal),
  };
}
