import type { Readable } from 'node:stream';
import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import type { CapsuleActivity, CapsuleUse } from '../capsules/activity.ts';
import { type Caller, type CapsulesDeps, requireRunning } from '../capsules/capsules.ts';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import type { Guest } from '../guest/guest.ts';
import type { GuestPool } from '../guest/guest-pool.ts';
import type { Host } from '../hosts/host.ts';

/** What routes work with. */
export interface RouteDeps {
  readonly db: Db;
  readonly capsules: CapsulesDeps;
  readonly guests: GuestPool;
  readonly activity: CapsuleActivity;
  readonly hostOf: (hostId: string) => Host;
}

/** The errors that every route may answer, for the OpenAPI document. */
export const errorResponses = { '4xx': errorResponseSchema, '5xx': errorResponseSchema } as const;

/** The body of a 204. */
export const noContent = z.null().meta({ description: 'Done.' });

/** A guest in use: as long as it is not disposed its capsule is not idle. */
export interface GuestInUse extends Disposable {
  readonly capsule: Capsule;
  readonly guest: Guest;
}

/**
 * @param use what is done; `bytes` for what is no use by being open: the caller tells of each byte by `activity.touch`
 * @throws WrennError when the caller has no such capsule, or it does not run
 */
export async function useGuest(
  deps: RouteDeps,
  caller: Caller,
  capsuleId: string,
  use?: CapsuleUse | 'bytes',
): Promise<GuestInUse> {
  const capsule = await requireRunning(deps.db, caller.teamId, capsuleId);
  const inUse = beginUse(deps.activity, capsule.id, use);
  return { capsule, guest: deps.guests.get(capsule), [Symbol.dispose]: () => inUse[Symbol.dispose]() };
}

function beginUse(activity: CapsuleActivity, id: string, use: CapsuleUse | 'bytes' | undefined): Disposable {
  if (use !== 'bytes') return activity.begin(id, use);
  activity.touch(id);
  return { [Symbol.dispose]: () => undefined };
}

/** Sends a stream where the route's schema describes what it holds. */
export function sendStream(reply: FastifyReply, stream: Readable): FastifyReply {
  return reply.send(stream);
}
