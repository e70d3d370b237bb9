import type { FastifyRequest } from 'fastify';
import type { Actor } from '../access/actor.ts';
import { actorOf } from '../access/actor.ts';
import type { HostRow } from '../database/host-schema.ts';

/** Whoever asks about hosts: an administrator of the platform, or somebody for a team. */
export interface HostViewer {
  readonly isAdmin: boolean;
  /** Id of the user or key. */
  readonly id: string | undefined;
  readonly userId: string | undefined;
  readonly team: { readonly id: string } | undefined;
  readonly actor: Actor;
}

export function viewerOf(request: FastifyRequest): HostViewer {
  const { principal } = request;
  const isUser = principal?.type === 'user';
  return {
    isAdmin: isUser && principal.isAdmin,
    id: principal?.id,
    userId: isUser ? principal.id : undefined,
    team: principal?.team,
    actor: actorOf(request),
  };
}

/** Which hosts there are besides one's own is nobody's business but the platform's. */
export function maySee(viewer: HostViewer, { teamId }: Pick<HostRow, 'teamId'>): boolean {
  return viewer.isAdmin || (teamId !== null && teamId === viewer.team?.id);
}
