import { createHash } from 'node:crypto';
import { isIPv6 } from 'node:net';
import { WrennError } from '@wrenn/protocol/errors';
import type { FastifyRequest } from 'fastify';
import { type RateLimiterAbstract, RateLimiterRes } from 'rate-limiter-flexible';
import type { MakeLimiter } from '../shared/limiters.ts';

const MINUTE_S = 60;
const HOUR_S = 3600;

interface Rate {
  readonly attempts: number;
  readonly perS: number;
}

interface PathLimits {
  /** From one client address. */
  readonly address: Rate;
  /** For one account, wherever they come from; whether there is such an account or not. */
  readonly account?: Rate;
}

/** How often each thing that a credential can be guessed or mail be sent by may be tried. */
const CREDENTIAL_PATHS = {
  login: { address: { attempts: 60, perS: 5 * MINUTE_S }, account: { attempts: 30, perS: 5 * MINUTE_S } },
  /** Of one account its lock bounds them. */
  two_factor: { address: { attempts: 60, perS: 5 * MINUTE_S } },
  passkey: { address: { attempts: 60, perS: 5 * MINUTE_S } },
  oauth: { address: { attempts: 60, perS: 10 * MINUTE_S } },
  sign_up: { address: { attempts: 20, perS: HOUR_S }, account: { attempts: 5, perS: HOUR_S } },
  activation: { address: { attempts: 60, perS: HOUR_S } },
  reset_request: { address: { attempts: 20, perS: HOUR_S }, account: { attempts: 5, perS: HOUR_S } },
  reset_confirm: { address: { attempts: 60, perS: HOUR_S } },
  /** A password asked for once more from somebody who is logged in. */
  own_password: { address: { attempts: 60, perS: HOUR_S }, account: { attempts: 20, perS: HOUR_S } },
  invitation: { address: { attempts: 60, perS: 10 * MINUTE_S } },
  /** Sends something to wherever whoever asks wants; the account is the team. */
  channel_test: { address: { attempts: 60, perS: 5 * MINUTE_S }, account: { attempts: 30, perS: 5 * MINUTE_S } },
  host_registration: { address: { attempts: 60, perS: 10 * MINUTE_S } },
  /** Only keys and tokens that are refused count. */
  api_key: { address: { attempts: 120, perS: MINUTE_S } },
} as const satisfies Record<string, PathLimits>;

export type CredentialPath = keyof typeof CREDENTIAL_PATHS;

/** Paths that have a limit for one account too. */
export type CountedByAccount = {
  [Path in CredentialPath]: (typeof CREDENTIAL_PATHS)[Path] extends { account: Rate } ? Path : never;
}[CredentialPath];

/** Counts attempts where all control planes count, so that they share the limits. */
export class RateLimits {
  readonly #limiters = new Map<string, RateLimiterAbstract>();

  /** @param factor all limits times this; 0: there are none */
  constructor(limiterOf: MakeLimiter, factor: number) {
    if (factor === 0) return;
    for (const [path, limits] of Object.entries<PathLimits>(CREDENTIAL_PATHS)) {
      for (const [by, rate] of Object.entries(limits) as [string, Rate][]) {
        const name = `${path}:${by}`;
        const attempts = Math.max(1, Math.round(rate.attempts * factor));
        this.#limiters.set(name, limiterOf({ name, attempts, perS: rate.perS }));
      }
    }
  }

  /** One attempt from a client's address. @throws WrennError `rate_limited`, `database_unavailable` */
  countAddress(path: CredentialPath, address: string): Promise<void> {
    return this.#count(`${path}:address`, networkOf(address));
  }

  /**
   * One attempt for an account, named by its e-mail address or its id.
   *
   * @throws WrennError `rate_limited`, `database_unavailable`
   */
  countAccount(path: CountedByAccount, account: string): Promise<void> {
    // Hashed: whatever somebody typed is not kept.
    return this.#count(`${path}:account`, createHash('sha256').update(account.toLowerCase()).digest('hex'));
  }

  async #count(name: string, key: string): Promise<void> {
    try {
      await this.#limiters.get(name)?.consume(key);
    } catch (error) {
      if (!(error instanceof RateLimiterRes)) throw new WrennError('database_unavailable', {}, { cause: error });
      throw new WrennError('rate_limited', { retry_after_s: Math.max(1, Math.ceil(error.msBeforeNext / 1000)) });
    }
  }
}

/** A preHandler for a route that takes credentials: counts each request for the client's address. */
export function limitCredentialPath(
  limits: RateLimits,
  path: CredentialPath,
): (request: FastifyRequest) => Promise<void> {
  return (request) => limits.countAddress(path, request.ip);
}

/** The same, and for the account whose address the body names. */
export function limitAccountPath(
  limits: RateLimits,
  path: CountedByAccount,
): (request: FastifyRequest & { readonly body: { readonly email: string } }) => Promise<void> {
  return async ({ ip, body }) => {
    await limits.countAddress(path, ip);
    await limits.countAccount(path, body.email);
  };
}

/** What counts as one client: of IPv6 a customer gets a /64 at least, and every address in it is one client's. */
function networkOf(address: string): string {
  if (!isIPv6(address)) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  const [head = '', tail] = address.split('%')[0]?.split('::') ?? [];
  const groups = head.split(':').filter(Boolean);
  if (tail !== undefined) {
    const last = tail.split(':').filter(Boolean);
    groups.push(...Array<string>(Math.max(0, 8 - groups.length - last.length)).fill('0'), ...last);
  }
  return `${groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}
