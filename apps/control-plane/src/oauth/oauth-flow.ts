import { randomBytes } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { FleetingTokens } from '../shared/fleeting-tokens.ts';
import { hashToken, newToken } from '../tokens/one-time-tokens.ts';
import type { LoginProvider, LoginSecrets } from './provider.ts';

const FLOW_LIFETIME_MS = 10 * 60_000;

/** Where the one-time code goes that a login ends with. */
const receiverSchema = z.discriminatedUnion('kind', [
  /** The dashboard, in the browser that began. */
  z.object({ kind: z.literal('page') }),
  /** A program on the machine of that browser, which must know what `challenge` is the SHA-256 of. */
  z.object({ kind: z.literal('program'), port: z.int(), state: z.string(), challenge: z.string() }),
]);
export type Receiver = z.output<typeof receiverSchema>;

const purposeSchema = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('login'), receiver: receiverSchema }),
  z.object({ kind: z.literal('sign_up'), receiver: receiverSchema, invitation: z.string().optional() }),
  /** Only as long as that session lives. */
  z.object({ kind: z.literal('link'), userId: z.string(), sessionId: z.string() }),
]);
/** What somebody was sent to a provider for. */
export type FlowPurpose = z.output<typeof purposeSchema>;

const flowSchema = z.object({
  /** SHA-256 of the cookie of the browser that began. */
  browser: z.string(),
  nonce: z.string(),
  verifier: z.string(),
  redirectUri: z.string(),
  purpose: purposeSchema,
});

/** What was kept while the browser was at the provider. */
export interface Flow {
  readonly secrets: LoginSecrets;
  readonly purpose: FlowPurpose;
  readonly browser: string;
}

/** The browser and how it is reached. */
export interface FlowExchange {
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  readonly publicUrl: string | undefined;
}

/**
 * Begins a login at a provider. The state works once, and only in the browser that gets the cookie of this answer.
 *
 * @returns where to send the browser
 * @throws ProviderError
 */
export async function beginFlow(
  tokens: FleetingTokens,
  exchange: FlowExchange,
  provider: LoginProvider,
  purpose: FlowPurpose,
): Promise<URL> {
  const redirectUri = `${ownUrl(exchange)}/auth/oauth/${provider.id}/callback`;
  const nonce = randomBytes(32).toString('base64url');
  const verifier = randomBytes(32).toString('base64url');
  const cookie = newToken();
  const data: z.input<typeof flowSchema> = { browser: hashToken(cookie), nonce, verifier, redirectUri, purpose };
  const state = await tokens.put({
    purpose: 'oauth_state',
    subject: provider.id,
    data,
    lifetimeMs: FLOW_LIFETIME_MS,
  });
  const url = await provider.authorizationUrl({ state, nonce, verifier, redirectUri });
  const { name, options } = flowCookie(exchange);
  exchange.reply.setCookie(name, cookie, { ...options, maxAge: FLOW_LIFETIME_MS / 1000 });
  return url;
}

/** Takes the flow out that a state stands for. Undefined: it is unknown, old, used, or another browser's or provider's. */
export async function takeFlow(
  tokens: FleetingTokens,
  exchange: FlowExchange,
  providerId: string,
  state: string,
): Promise<Flow | undefined> {
  const taken = await tokens.take('oauth_state', state);
  if (taken?.subject !== providerId) return undefined;
  const { browser, nonce, verifier, redirectUri, purpose } = flowSchema.parse(taken.data);
  if (browser !== browserOf(exchange)) return undefined;
  return { secrets: { state, nonce, verifier, redirectUri }, purpose, browser };
}

/** What this browser is known by since it began; undefined: it did not. */
export function browserOf(exchange: FlowExchange): string | undefined {
  const cookie = exchange.request.cookies[flowCookie(exchange).name];
  return cookie === undefined ? undefined : hashToken(cookie);
}

export function clearFlowCookie(exchange: FlowExchange): void {
  const { name, options } = flowCookie(exchange);
  exchange.reply.clearCookie(name, options);
}

/** This server's address as browsers know it, without a slash at its end. */
export function ownUrl({ request, publicUrl }: Pick<FlowExchange, 'request' | 'publicUrl'>): string {
  return publicUrl ?? `${request.protocol}://${request.host}`;
}

/** Over HTTPS its name has the prefix that keeps other hosts of the domain, capsules' too, from setting it. */
function flowCookie(exchange: FlowExchange) {
  const secure = ownUrl(exchange).startsWith('https:');
  return {
    name: secure ? '__Host-wrenn_oauth' : 'wrenn_oauth',
    options: { path: '/', httpOnly: true, sameSite: 'lax', secure } as const,
  };
}
