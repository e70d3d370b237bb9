import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { OAuthSettings } from '../settings.ts';
import { type LoginProvider, PROVIDER_TIMEOUT_MS, type ProviderAccount, ProviderError } from './provider.ts';

const tokenSchema = z.object({ access_token: z.string().min(1) });
const userSchema = z.object({ id: z.int(), login: z.string(), name: z.string().nullish() });
const emailsSchema = z.array(z.object({ email: z.email().max(320), primary: z.boolean(), verified: z.boolean() }));

/** GitHub, which has OAuth but no OpenID Connect: docs.github.com, "Authorizing OAuth apps". */
export function githubProvider(settings: NonNullable<OAuthSettings['github']>): LoginProvider {
  const { clientId, clientSecret, url, apiUrl } = settings;
  return {
    id: 'github',
    name: 'GitHub',
    authorizationUrl: async ({ redirectUri, state, verifier }) => {
      const target = new URL(`${url}/login/oauth/authorize`);
      target.search = new URLSearchParams({
        client_id: clientId,
        redirect_uri: redirectUri,
        scope: 'read:user user:email',
        state,
        code_challenge: createHash('sha256').update(verifier).digest('base64url'),
        code_challenge_method: 'S256',
      }).toString();
      return target;
    },
    exchange: async (callbackUrl, { redirectUri, verifier }) => {
      const { access_token: token } = await ask(`${url}/login/oauth/access_token`, tokenSchema, {
        method: 'POST',
        body: new URLSearchParams({
          client_id: clientId,
          client_secret: clientSecret,
          code: callbackUrl.searchParams.get('code') ?? '',
          redirect_uri: redirectUri,
          code_verifier: verifier,
        }),
      });
      return readAccount(apiUrl, token);
    },
  };
}

async function readAccount(apiUrl: string, token: string): Promise<ProviderAccount> {
  const headers = { authorization: `Bearer ${token}`, 'x-github-api-version': '2022-11-28' };
  const [user, emails] = await Promise.all([
    ask(`${apiUrl}/user`, userSchema, { headers }),
    ask(`${apiUrl}/user/emails`, emailsSchema, { headers }),
  ]);
  return {
    subject: String(user.id),
    email: emails.find(({ primary, verified }) => primary && verified)?.email,
    name: user.name ?? user.login,
  };
}

/** @throws ProviderError also where GitHub says with status 200 that it refuses */
async function ask<T extends z.ZodType>(url: string, schema: T, init: RequestInit): Promise<z.output<T>> {
  try {
    const answer = await fetch(url, {
      ...init,
      headers: { accept: 'application/json', 'user-agent': 'wrenn', ...init.headers },
      redirect: 'error',
      signal: AbortSignal.timeout(PROVIDER_TIMEOUT_MS),
    });
    if (!answer.ok) throw new Error(`${new URL(url).pathname} was answered with ${answer.status}`);
    return schema.parse(await answer.json());
  } catch (cause) {
    throw new ProviderError('the login did not work out with GitHub', { cause });
  }
}
