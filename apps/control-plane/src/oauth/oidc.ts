import * as client from 'openid-client';
import { z } from 'zod';
import type { OAuthClient } from '../settings.ts';
import {
  type LoginProvider,
  type LoginSecrets,
  PROVIDER_TIMEOUT_MS,
  type ProviderAccount,
  ProviderError,
  type ProviderId,
} from './provider.ts';

/** How long what an issuer says of itself, its keys' address included, is taken for granted. */
const DISCOVERY_LIFETIME_MS = 60 * 60 * 1000;

export interface OidcOptions extends OAuthClient {
  readonly id: ProviderId;
  readonly name: string;
  readonly issuer: string;
}

const claimsSchema = z.object({
  sub: z.string().min(1),
  email: z.email().max(320).optional().catch(undefined),
  /** Some issuers send the word. */
  email_verified: z
    .union([z.boolean(), z.literal('true').transform(() => true)])
    .optional()
    .catch(undefined),
  name: z.string().optional().catch(undefined),
  preferred_username: z.string().optional().catch(undefined),
});

/** A provider that speaks OpenID Connect: authorization code with PKCE and a nonce. */
export function oidcProvider(options: OidcOptions): LoginProvider {
  const discover = cachedDiscovery(options);
  return {
    id: options.id,
    name: options.name,
    authorizationUrl: (secrets) => asProviderError(async () => authorizationUrl(await discover(), secrets)),
    exchange: (callbackUrl, secrets) => asProviderError(async () => exchange(await discover(), callbackUrl, secrets)),
  };
}

async function authorizationUrl(
  config: client.Configuration,
  { redirectUri, state, nonce, verifier }: LoginSecrets,
): Promise<URL> {
  return client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: 'openid email profile',
    state,
    nonce,
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
  });
}

async function exchange(
  config: client.Configuration,
  callbackUrl: URL,
  { state, nonce, verifier }: LoginSecrets,
): Promise<ProviderAccount> {
  const tokens = await client.authorizationCodeGrant(config, callbackUrl, {
    expectedState: state,
    expectedNonce: nonce,
    pkceCodeVerifier: verifier,
    idTokenExpected: true,
  });
  const claims = claimsSchema.parse(tokens.claims());
  const known = claims.email === undefined ? { ...claims, ...(await userInfo(config, tokens, claims.sub)) } : claims;
  return {
    subject: known.sub,
    email: known.email_verified === true ? known.email : undefined,
    name: known.name ?? known.preferred_username,
  };
}

/** Many issuers tell the e-mail address only there. */
async function userInfo(
  config: client.Configuration,
  tokens: client.TokenEndpointResponse,
  subject: string,
): Promise<Partial<z.output<typeof claimsSchema>>> {
  if (config.serverMetadata().userinfo_endpoint === undefined) return {};
  return claimsSchema.parse(await client.fetchUserInfo(config, tokens.access_token, subject));
}

/** What the issuer says of itself: asked once, by whoever comes first, and again when it is old or could not be got. */
function cachedDiscovery(options: OidcOptions): () => Promise<client.Configuration> {
  let cached: { readonly config: Promise<client.Configuration>; readonly untilMs: number } | undefined;
  return () => {
    if (cached && performance.now() < cached.untilMs) return cached.config;
    const entry = { config: discover(options), untilMs: performance.now() + DISCOVERY_LIFETIME_MS };
    cached = entry;
    entry.config.catch(() => {
      if (cached === entry) cached = undefined;
    });
    return entry.config;
  };
}

function discover({ issuer, clientId, clientSecret }: OidcOptions): Promise<client.Configuration> {
  const basic = client.ClientSecretBasic(clientSecret);
  const post = client.ClientSecretPost(clientSecret);
  const authenticate: client.ClientAuth = (server, ...rest) => {
    // Basic is what an issuer takes that does not say.
    const methods = server.token_endpoint_auth_methods_supported ?? ['client_secret_basic'];
    return (methods.includes('client_secret_basic') ? basic : post)(server, ...rest);
  };
  return client.discovery(new URL(issuer), clientId, undefined, authenticate, {
    timeout: PROVIDER_TIMEOUT_MS / 1000,
    // An issuer at http:// is one that the administrator set so: on this machine, or in a net of their own.
    execute: issuer.startsWith('http:') ? [client.allowInsecureRequests] : [],
  });
}

async function asProviderError<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new ProviderError('the login did not work out with its provider', { cause });
  }
}
