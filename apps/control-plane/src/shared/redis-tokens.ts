import { createHmac, timingSafeEqual } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import { z } from 'zod';
import { hashToken, newToken, type TakenToken } from '../tokens/one-time-tokens.ts';
import type { FleetingTokens, NewFleetingToken } from './fleeting-tokens.ts';
import { RedisAwayError, type RedisLink } from './redis-link.ts';

/** Hex digits of a SHA-256. */
const SEAL_LENGTH = 64;

const keptSchema = z.object({ subject: z.string(), data: z.record(z.string(), z.unknown()) });

/**
 * Tokens in Redis, each in one key that whoever takes it removes. They end with the server: one that was taken must not
 * come back with what a restarted server reads from its disk. While Redis is away tokens are made in PostgreSQL. Each is
 * in one of the two only, so it works once whatever fails. What is kept is sealed: whoever can write to Redis must not be
 * able to make a login.
 *
 * @param prefix of every key of this platform
 * @param sealKey known to its control planes only
 */
export function redisTokens(
  link: RedisLink,
  prefix: string,
  sealKey: Uint8Array,
  postgres: FleetingTokens,
): FleetingTokens {
  const keyOf = (epoch: string, purpose: string, hash: string) => `${prefix}:${epoch}:token:${purpose}:${hash}`;

  const put = async ({ purpose, subject, data = {}, lifetimeMs, replaces }: NewFleetingToken): Promise<string> => {
    const token = newToken();
    const hash = hashToken(token);
    const text = JSON.stringify({ subject, data } satisfies TakenToken);
    const kept = sealOf(sealKey, purpose, hash, text) + text;
    const expires = { expiration: { type: 'PX', value: lifetimeMs } } as const;
    await link.run(async (client, epoch) => {
      const key = keyOf(epoch, purpose, hash);
      if (!replaces) {
        await client.set(key, kept, expires);
        return;
      }
      // In one step, so that of two at once the later one finds the earlier.
      const [, earlier] = await client
        .multi()
        .set(key, kept, expires)
        .set(`${prefix}:${epoch}:latest:${purpose}:${subject}`, key, { ...expires, GET: true })
        .exec();
      if (typeof earlier === 'string') await client.del(earlier);
    });
    return token;
  };

  return {
    async put(token) {
      try {
        return await put(token);
      } catch (error) {
        if (!(error instanceof RedisAwayError)) throw error;
        return postgres.put(token);
      }
    },

    async take(purpose, token) {
      let away: RedisAwayError | undefined;
      try {
        const hash = hashToken(token);
        const kept = await link.run((client, epoch) => client.getDel(keyOf(epoch, purpose, hash)));
        if (kept !== null) return open(sealKey, purpose, hash, kept);
      } catch (error) {
        if (!(error instanceof RedisAwayError)) throw error;
        away = error;
      }
      // It may be one that was made while Redis was away.
      const taken = await postgres.take(purpose, token);
      if (!taken && away) throw new WrennError('shared_state_unavailable', {}, { cause: away });
      return taken;
    },
  };
}

/** Of this token, so that it is of no use under another one's key. Always as long. */
function sealOf(key: Uint8Array, purpose: string, hash: string, text: string): string {
  return createHmac('sha256', key).update(`${purpose}:${hash}:${text}`).digest('hex');
}

/** Undefined: it is none of this platform's. */
function open(key: Uint8Array, purpose: string, hash: string, kept: string): TakenToken | undefined {
  const text = kept.slice(SEAL_LENGTH);
  const [given, right] = [kept.slice(0, SEAL_LENGTH), sealOf(key, purpose, hash, text)].map((seal) =>
    Buffer.from(seal),
  );
  if (!given || !right || given.length !== right.length || !timingSafeEqual(given, right)) return undefined;
  return keptSchema.parse(JSON.parse(text));
}
