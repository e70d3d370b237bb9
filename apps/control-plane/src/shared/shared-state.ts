import { createHmac } from 'node:crypto';
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { type FleetingTokens, postgresTokens } from './fleeting-tokens.ts';
import { type MakeLimiter, postgresLimiters, redisLimiters } from './limiters.ts';
import { type Hearer, RedisEvents, subscribe } from './redis-events.ts';
import { RedisLink } from './redis-link.ts';
import { redisTokens } from './redis-tokens.ts';

/**
 * What the control planes of one database share besides its rows. Their announcements (`announce`) go the same way,
 * from when this is open.
 */
export interface SharedState extends AsyncDisposable {
  readonly tokens: FleetingTokens;
  readonly limiterOf: MakeLimiter;
  /** How Redis is, for people; undefined where it is not used. Away, it does not keep anybody from being served. */
  checkRedis(): RedisCheck | undefined;
}

export interface RedisCheck {
  readonly ok: boolean;
  readonly detail: string;
}

export interface SharedStateOptions {
  readonly db: Db;
  /** What `db` is over. */
  readonly pool: Pool;
  /** Undefined: PostgreSQL does it all. */
  readonly redisUrl: string | undefined;
  /** What all control planes of a platform have, and no other platform: several may use one Redis. */
  readonly platformSecret: Uint8Array;
  readonly hearer: Hearer;
  readonly log: Logger;
}

/** Does not wait for Redis: without it PostgreSQL stands in. */
export function openSharedState(options: SharedStateOptions): SharedState {
  const { db, pool, redisUrl, hearer, log } = options;
  const tokens = postgresTokens(db);
  const limiterOf = postgresLimiters(pool);
  if (redisUrl === undefined) {
    return { tokens, limiterOf, checkRedis: () => undefined, [Symbol.asyncDispose]: async () => undefined };
  }
  const prefix = `wrenn:${derive(options.platformSecret, 'names of keys in Redis').toString('hex').slice(0, 16)}`;
  const sealKey = derive(options.platformSecret, 'seals of tokens in Redis');
  const topic = `${prefix}:announced`;
  const link = new RedisLink({
    url: redisUrl,
    prepare: (client) => subscribe(client, topic, hearer),
    onUp: () => hearer.missed(),
    log,
  });
  const events = new RedisEvents({ db, link, topic, hearer, log });
  return {
    tokens: redisTokens(link, prefix, sealKey, tokens),
    limiterOf: redisLimiters(link, prefix, limiterOf),
    checkRedis: () =>
      link.isUp ? { ok: true, detail: 'answers' } : { ok: false, detail: 'is away; PostgreSQL stands in' },
    [Symbol.asyncDispose]: async () => {
      await events[Symbol.asyncDispose]();
      await link[Symbol.asyncDispose]();
    },
  };
}

function derive(secret: Uint8Array, what: string): Buffer {
  return createHmac('sha256', secret).update(what).digest();
}
