import type { Pool } from 'pg';
import { type RateLimiterAbstract, RateLimiterPostgres, RateLimiterRedis } from 'rate-limiter-flexible';
import type { RedisLink } from './redis-link.ts';

/** So many attempts of each key in a time. */
export interface Limit {
  readonly name: string;
  readonly attempts: number;
  readonly perS: number;
}

/** Makes what counts attempts for all control planes together. */
export type MakeLimiter = (limit: Limit) => RateLimiterAbstract;

export function postgresLimiters(pool: Pool): MakeLimiter {
  return ({ name, attempts, perS }) =>
    new RateLimiterPostgres({
      ...{ storeClient: pool, storeType: 'pool', tableName: 'rate_limits', tableCreated: true },
      ...{ keyPrefix: name, points: attempts, duration: perS },
      // Rows that count no more are removed with the other leftovers of accounts.
      clearExpiredByTimeout: false,
    });
}

/** While Redis is away PostgreSQL counts, from the beginning: for that time somebody has twice the attempts at most. */
export function redisLimiters(link: RedisLink, prefix: string, standIn: MakeLimiter): MakeLimiter {
  const storeClient = {
    eval: (script: string, options: { keys: string[]; arguments: string[] }) =>
      link.run((client) => client.eval(script, options)),
  };
  return (limit) =>
    new RateLimiterRedis({
      ...{ storeClient, useRedisPackage: true, insuranceLimiter: standIn(limit) },
      ...{ keyPrefix: `${prefix}:limit:${limit.name}`, points: limit.attempts, duration: limit.perS },
    });
}
