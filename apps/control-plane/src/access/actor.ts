import type { FastifyRequest } from 'fastify';

/** Which results of a request are in the audit log, or will be whatever becomes of the request. */
export type Told = Set<'success' | 'failure'>;

/** Copies of an actor share it, so that a changed copy still belongs to its request. Not part of what is stored. */
const TOLD = Symbol('told');

/** Who did something, as audit entries and events name them. */
export interface Actor {
  readonly type: 'user' | 'api_key' | 'system';
  readonly id?: string | undefined;
  readonly name: string;
  /** IP address of the client. */
  readonly address?: string | undefined;
  readonly requestId?: string | undefined;
  readonly [TOLD]?: Told;
}

/** What this platform does by itself. */
export const SYSTEM: Actor = { type: 'system', name: 'system' };

const toldByRequest = new WeakMap<FastifyRequest, Told>();

/** Who sent a request. Without a credential it is an unknown user. */
export function actorOf(request: FastifyRequest): Actor {
  const { principal, ip, id } = request;
  const from = { address: ip, requestId: id, [TOLD]: toldOf(request) };
  if (!principal) return { type: 'user', name: 'unknown', ...from };
  const type = principal.type === 'host' ? 'system' : principal.type;
  return { type, id: principal.id, name: principal.name, ...from };
}

export function toldOf(request: FastifyRequest): Told {
  const told = toldByRequest.get(request) ?? new Set();
  toldByRequest.set(request, told);
  return told;
}

/** Notes that the audit log has results of the request that the actor sent. */
export function noteTold(actor: Actor | undefined, ...results: ('success' | 'failure')[]): void {
  for (const result of results) actor?.[TOLD]?.add(result);
}
