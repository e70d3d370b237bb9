import { withEarlierNames } from '@wrenn/config/earlier-names';
import {
  absolutePath,
  EnvironmentError,
  type ListenAddress,
  listenAddress,
  readEnvironment,
} from '@wrenn/config/environment';
import { GivenAuthorityError, readGivenAuthority } from '@wrenn/pki/given-authority';
import type { KeyPair } from '@wrenn/pki/issue';
import { z } from 'zod';
import { areNetworks } from './outbound/address-policy.ts';
import { DEFAULT_PLACEMENT, type PlacementSettings } from './placement/placement-settings.ts';
import { type Prices, pricesVariable } from './usage/prices.ts';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

/** How a control plane is set up. */
export interface Settings {
  /** PostgreSQL of the user's own; undefined: the embedded one. */
  readonly databaseUrl: string | undefined;
  /** Redis for what several control planes share; undefined: PostgreSQL does that too. */
  readonly redisUrl: string | undefined;
  readonly listen: ListenAddress;
  /** URL of the host agent that need not register; undefined: there is none. */
  readonly hostAgentAddress: string | undefined;
  /** Where traces go; undefined: nowhere. */
  readonly otlpEndpoint: string | undefined;
  readonly wrennDir: string;
  readonly logLevel: (typeof LOG_LEVELS)[number];
  /** Signs tokens of logins; undefined: one that is made and kept in WRENN_DIR. */
  readonly jwtSecret: string | undefined;
  /** Signs the certificates of hosts and control planes; undefined: one that is made and kept in WRENN_DIR. */
  readonly authority: KeyPair | undefined;
  /** Encrypt secrets in the database, the first of them; undefined: one that is made and kept in WRENN_DIR. */
  readonly encryptionKeys: readonly string[] | undefined;
  /** Where people reach this server, without a slash at its end; links in mails begin with it. */
  readonly publicUrl: string | undefined;
  /** Proxies whose X-Forwarded headers count. */
  readonly trustedProxies: readonly string[];
  /** How long entries of the audit log are kept at least, in days. */
  readonly auditRetentionDays: number;
  /** Modules of extensions. */
  readonly extensions: readonly string[];
  /** open: anybody may sign up; invited: only with an invitation. */
  readonly signUp: 'open' | 'invited';
  /** All limits on how often credentials may be tried, times this; 0: there are none. */
  readonly rateLimitFactor: number;
  /** Undefined: mails are held for the administrator. */
  readonly smtp: SmtpSettings | undefined;
  /** Networks that are not public and that webhooks may reach nevertheless, also with plain HTTP. */
  readonly outboundAllow: readonly string[];
  readonly oauth: OAuthSettings;
  /** Undefined: usage has no cost. */
  readonly prices: Prices | undefined;
  readonly placement: PlacementSettings;
}

/** A server that takes mail. */
export interface SmtpSettings {
  readonly host: string;
  readonly port: number;
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** Sender of every mail. */
  readonly from: string;
}

export interface OAuthClient {
  readonly clientId: string;
  readonly clientSecret: string;
}

/** Providers that people can log in with. */
export interface OAuthSettings {
  readonly github: (OAuthClient & { readonly url: string; readonly apiUrl: string }) | undefined;
  readonly google: (OAuthClient & { readonly issuer: string }) | undefined;
  readonly oidc: (OAuthClient & { readonly issuer: string; readonly name: string }) | undefined;
  /** Where browsers go once they are logged in: the address of the dashboard. Undefined: the public URL. */
  readonly redirectUrl: string | undefined;
}

const httpUrl = z
  .url({ protocol: /^https?$/, error: 'must be a URL such as https://wrenn.example.com' })
  .transform((url) => url.replace(/\/+$/, ''));

const reservedShare = z.coerce.number().min(0).max(0.95);
const overcommit = z.coerce.number().min(0.1).max(1000);
const share = z.coerce.number().min(0).max(1);

const shape = {
  // Not z.url(): "postgres://user@/name?host=/socket/folder" is PostgreSQL's own form and no URL of the web's.
  DATABASE_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\//, 'must be a URL such as postgres://user:password@host/name')
    .optional(),
  REDIS_URL: z
    .url({
      protocol: /^rediss?$/,
      error: 'must be a URL such as redis://:password@host:6379/0, or rediss://… with TLS',
    })
    .optional(),
  WRENN_CP_LISTEN_ADDR: listenAddress.default({ host: undefined, port: 8000 }),
  CP_HOST_AGENT_ADDR: z
    .union([
      z.literal('none'),
      z.url({ protocol: /^https$/, error: 'must be a URL such as https://localhost:50051, or "none"' }),
    ])
    .default('https://localhost:50051')
    // After the default, which would take the place of undefined.
    .transform((address) => (address === 'none' ? undefined : address)),
  OTEL_EXPORTER_OTLP_ENDPOINT: httpUrl.optional(),
  WRENN_DIR: absolutePath.default('/var/lib/wrenn'),
  LOG_LEVEL: z.enum(LOG_LEVELS).default('info'),
  JWT_SECRET: z.string().min(32, 'must have at least 32 characters').optional(),
  WRENN_CA_CERT: z.string().optional(),
  WRENN_CA_KEY: z.string().optional(),
  WRENN_ENCRYPTION_KEY: z
    .string()
    .transform((text) => text.split(',').map((key) => key.trim()))
    .pipe(z.array(z.string().regex(/^[0-9a-fA-F]{64}$/, 'must be 64 hex characters, several with commas between')))
    .optional(),
  CP_PUBLIC_URL: httpUrl.optional(),
  WRENN_TRUSTED_PROXIES: z
    .string()
    .default('')
    .transform((text) => text.split(',').flatMap((part) => part.trim() || [])),
  WRENN_AUDIT_RETENTION_DAYS: z.coerce.number().int().min(1).max(36_500).default(365),
  WRENN_EXTENSIONS: z
    .string()
    .default('')
    .transform((text) => text.split(',').flatMap((part) => part.trim() || []))
    .pipe(z.array(absolutePath)),
  WRENN_SIGN_UP: z.enum(['open', 'invited']).default('open'),
  WRENN_RATE_LIMIT_FACTOR: z.coerce.number().min(0).max(1_000_000).default(1),
  WRENN_OUTBOUND_ALLOW: z
    .string()
    .default('')
    .transform((text) => text.split(',').flatMap((part) => part.trim() || []))
    .refine(areNetworks, 'must be networks such as 10.0.0.0/8, several with commas between'),
  WRENN_PRICES: pricesVariable.optional(),
  SMTP_HOST: z.string().optional(),
  SMTP_PORT: z.coerce.number().int().min(1).max(65_535).default(587),
  SMTP_USERNAME: z.string().optional(),
  SMTP_PASSWORD: z.string().optional(),
  SMTP_FROM_EMAIL: z.string().default('wrenn@localhost'),
  OAUTH_GITHUB_CLIENT_ID: z.string().optional(),
  OAUTH_GITHUB_CLIENT_SECRET: z.string().optional(),
  OAUTH_GITHUB_URL: httpUrl.default('https://github.com'),
  OAUTH_GITHUB_API_URL: httpUrl.default('https://api.github.com'),
  OAUTH_GOOGLE_CLIENT_ID: z.string().optional(),
  OAUTH_GOOGLE_CLIENT_SECRET: z.string().optional(),
  OAUTH_GOOGLE_ISSUER: httpUrl.default('https://accounts.google.com'),
  OAUTH_OIDC_ISSUER: httpUrl.optional(),
  OAUTH_OIDC_CLIENT_ID: z.string().optional(),
  OAUTH_OIDC_CLIENT_SECRET: z.string().optional(),
  OAUTH_OIDC_NAME: z.string().max(50).default('Single sign-on'),
  OAUTH_REDIRECT_URL: httpUrl.optional(),
  WRENN_PLACEMENT_RESERVED_MEMORY: reservedShare.default(DEFAULT_PLACEMENT.reservedMemory),
  WRENN_PLACEMENT_RESERVED_CPU: reservedShare.default(DEFAULT_PLACEMENT.reservedCpu),
  WRENN_PLACEMENT_RESERVED_DISK: reservedShare.default(DEFAULT_PLACEMENT.reservedDisk),
  WRENN_PLACEMENT_MEMORY_OVERCOMMIT: overcommit.default(DEFAULT_PLACEMENT.memoryOvercommit),
  WRENN_PLACEMENT_CPU_OVERCOMMIT: overcommit.default(DEFAULT_PLACEMENT.cpuOvercommit),
  WRENN_PLACEMENT_DISK_OVERCOMMIT: overcommit.default(DEFAULT_PLACEMENT.diskOvercommit),
  WRENN_PLACEMENT_ASLEEP_MEMORY: share.default(DEFAULT_PLACEMENT.asleepMemory),
  WRENN_PLACEMENT_ASLEEP_DISK: share.default(DEFAULT_PLACEMENT.asleepDisk),
  WRENN_PLACEMENT_MIN_DISK_FREE: share.default(DEFAULT_PLACEMENT.minDiskFree),
  WRENN_PLACEMENT_FETCH_PENALTY: share.default(DEFAULT_PLACEMENT.fetchPenalty),
};

const EARLIER_NAMES = { CP_LISTEN_ADDR: 'WRENN_CP_LISTEN_ADDR' };

/** @throws EnvironmentError naming everything that is wrong */
export function readSettings(env: Readonly<Record<string, string | undefined>> = process.env): Settings {
  const values = readEnvironment(shape, withEarlierNames(env, EARLIER_NAMES));
  return {
    databaseUrl: values.DATABASE_URL,
    redisUrl: values.REDIS_URL,
    listen: values.WRENN_CP_LISTEN_ADDR,
    hostAgentAddress: values.CP_HOST_AGENT_ADDR,
    wrennDir: values.WRENN_DIR,
    logLevel: values.LOG_LEVEL,
    jwtSecret: values.JWT_SECRET,
    authority: givenAuthority(values.WRENN_CA_CERT, values.WRENN_CA_KEY),
    encryptionKeys: values.WRENN_ENCRYPTION_KEY,
    publicUrl: values.CP_PUBLIC_URL,
    trustedProxies: values.WRENN_TRUSTED_PROXIES,
    auditRetentionDays: values.WRENN_AUDIT_RETENTION_DAYS,
    extensions: values.WRENN_EXTENSIONS,
    signUp: values.WRENN_SIGN_UP,
    rateLimitFactor: values.WRENN_RATE_LIMIT_FACTOR,
    outboundAllow: values.WRENN_OUTBOUND_ALLOW,
    prices: values.WRENN_PRICES,
    otlpEndpoint: values.OTEL_EXPORTER_OTLP_ENDPOINT,
    smtp: values.SMTP_HOST
      ? {
          host: values.SMTP_HOST,
          port: values.SMTP_PORT,
          username: values.SMTP_USERNAME,
          password: values.SMTP_PASSWORD,
          from: values.SMTP_FROM_EMAIL,
        }
      : undefined,
    oauth: {
      github: withClient(values.OAUTH_GITHUB_CLIENT_ID, values.OAUTH_GITHUB_CLIENT_SECRET, {
        url: values.OAUTH_GITHUB_URL,
        apiUrl: values.OAUTH_GITHUB_API_URL,
      }),
      google: withClient(values.OAUTH_GOOGLE_CLIENT_ID, values.OAUTH_GOOGLE_CLIENT_SECRET, {
        issuer: values.OAUTH_GOOGLE_ISSUER,
      }),
      oidc: values.OAUTH_OIDC_ISSUER
        ? withClient(values.OAUTH_OIDC_CLIENT_ID, values.OAUTH_OIDC_CLIENT_SECRET, {
            issuer: values.OAUTH_OIDC_ISSUER,
            name: values.OAUTH_OIDC_NAME,
          })
        : undefined,
      redirectUrl: values.OAUTH_REDIRECT_URL,
    },
    placement: {
      reservedMemory: values.WRENN_PLACEMENT_RESERVED_MEMORY,
      reservedCpu: values.WRENN_PLACEMENT_RESERVED_CPU,
      reservedDisk: values.WRENN_PLACEMENT_RESERVED_DISK,
      memoryOvercommit: values.WRENN_PLACEMENT_MEMORY_OVERCOMMIT,
      cpuOvercommit: values.WRENN_PLACEMENT_CPU_OVERCOMMIT,
      diskOvercommit: values.WRENN_PLACEMENT_DISK_OVERCOMMIT,
      asleepMemory: values.WRENN_PLACEMENT_ASLEEP_MEMORY,
      asleepDisk: values.WRENN_PLACEMENT_ASLEEP_DISK,
      minDiskFree: values.WRENN_PLACEMENT_MIN_DISK_FREE,
      fetchPenalty: values.WRENN_PLACEMENT_FETCH_PENALTY,
    },
  };
}

/** @throws EnvironmentError */
function givenAuthority(cert: string | undefined, key: string | undefined): KeyPair | undefined {
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined)
    throw new EnvironmentError('WRENN_CA_CERT and WRENN_CA_KEY belong together: set both, or none.');
  try {
    return readGivenAuthority(cert, key);
  } catch (cause) {
    if (cause instanceof GivenAuthorityError) throw new EnvironmentError(cause.message, { cause });
    throw cause;
  }
}

/** A provider counts once it has both parts of a client. */
function withClient<Rest extends object>(
  clientId: string | undefined,
  clientSecret: string | undefined,
  rest: Rest,
): (OAuthClient & Rest) | undefined {
  return clientId && clientSecret ? { clientId, clientSecret, ...rest } : undefined;
}
