import type { Readable } from 'node:stream';
import { errorResponseSchema } from '@wrenn/protocol/rest/error';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import type { OpenConnections } from '../access/open-connections.ts';
import type { KeyUse } from '../api-keys/key-use.ts';
import type { AuditSink } from '../audit/trail.ts';
import type { CapsuleActivity } from '../capsules/activity.ts';
import type { Caller, CapsulesDeps } from '../capsules/capsules.ts';
import type { GuestProbes } from '../capsules/guest-probes.ts';
import type { LifetimeWatch } from '../capsules/lifetime-watch.ts';
import type { Db } from '../database/database.ts';
import type { Capsule } from '../database/schema.ts';
import { explainBreak, requireAwake, type WhenAsleep } from '../guest/awake.ts';
import type { Guest } from '../guest/guest.ts';
import type { GuestPool } from '../guest/guest-pool.ts';
import type { Host } from '../hosts/host.ts';
import type { Passwords } from '../identity/passwords.ts';
import type { RateLimits } from '../identity/rate-limits.ts';
import type { Jobs } from '../jobs/jobs.ts';
import type { MailSender } from '../mail/mails.ts';
import type { Secrets } from '../secrets/secrets.ts';
import type { Settings } from '../settings.ts';
import type { FleetingTokens } from '../shared/fleeting-tokens.ts';

/** What routes work with. */
export interface RouteDeps {
  readonly db: Db;
  readonly capsules: CapsulesDeps;
  readonly guests: GuestPool;
  readonly activity: CapsuleActivity;
  readonly probes: GuestProbes;
  readonly lifetimes: LifetimeWatch;
  readonly hostOf: (hostId: string) => Host;
  readonly settings: Settings;
  readonly secrets: Secrets;
  readonly audit: AuditSink;
  readonly jobs: Jobs;
  readonly mail: MailSender;
  readonly keyUse: KeyUse;
  readonly passwords: Passwords;
  readonly rateLimits: RateLimits;
  readonly tokens: FleetingTokens;
  readonly connections: OpenConnections;
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

/** What a guest is used for. */
export interface GuestUse {
  /** For a person: what keeps the capsule awake meanwhile. Undefined: only each byte does, by `activity.touch`. */
  readonly detail: string | undefined;
  /** Default: wake. */
  readonly asleep?: WhenAsleep;
  /** How long to wait for it to wake. */
  readonly limitMs?: number;
}

/**
 * A guest, as soon as its capsule runs: one that sleeps is resumed where it has `auto_resume`.
 *
 * @param signal ends the wait
 * @throws WrennError when the caller has no such capsule, or it does not run
 */
export async function useGuest(
  deps: RouteDeps,
  caller: Caller,
  capsuleId: string,
  { detail, asleep = 'wake', limitMs }: GuestUse,
  signal: AbortSignal,
): Promise<GuestInUse> {
  const capsule = await requireAwake(deps.capsules, caller, capsuleId, asleep, signal, limitMs);
  const inUse = detail === undefined ? undefined : deps.activity.begin(capsule.id, { kind: 'stream', detail });
  if (!inUse) deps.activity.touch(capsule.id);
  return { capsule, guest: deps.guests.get(capsule), [Symbol.dispose]: () => inUse?.[Symbol.dispose]() };
}

/**
 * Does one thing with a guest.
 *
 * @throws WrennError as `useGuest`; `invalid_state` when the capsule went to sleep meanwhile
 */
export async function withGuest<T>(
  deps: RouteDeps,
  caller: Caller,
  capsuleId: string,
  detail: string,
  signal: AbortSignal,
  work: (guest: Guest) => Promise<T>,
): Promise<T> {
  using use = await useGuest(deps, caller, capsuleId, { detail }, signal);
  try {
    return await work(use.guest);
  } catch (error) {
    throw await explainBreak(deps.db, use.capsule, error);
  }
}

/** Sends a stream where the route's schema describes what it holds. */
export function sendStream(reply: FastifyReply, stream: Readable): FastifyReply {
  return reply.send(stream);
}
