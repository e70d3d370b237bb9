import { authSchema } from '@wrenn/protocol/rest/auth';
import {
  type BeginOAuthQuery,
  beginOAuthQuerySchema,
  exchangeRequestSchema,
  oauthCallbackQuerySchema,
  providerParamsSchema,
} from '@wrenn/protocol/rest/oauth';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { actorOf } from '../access/actor.ts';
import { errorResponses, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { completeLogin } from '../identity/complete-login.ts';
import { limitCredentialPath } from '../identity/rate-limits.ts';
import { finishFlow } from './finish-flow.ts';
import { type Landing, landingOf } from './landing.ts';
import { takeLoginCode } from './login-code.ts';
import { LoginProblem, problemOf } from './login-problem.ts';
import { beginFlow, browserOf, clearFlowCookie, type FlowPurpose, type Receiver, takeFlow } from './oauth-flow.ts';
import { type Providers, requireProvider } from './providers.ts';

const redirected = z.null().meta({ description: 'To the address in Location.' });

/** Where browsers go to log in with a provider, and where it sends them back to. At the root, and below /v1. */
export function oauthPages(app: Server, deps: RouteDeps, providers: Providers, { hide }: { hide: boolean }): void {
  const { tokens, settings, rateLimits } = deps;

  app.get(
    '/auth/oauth/:provider',
    {
      config: { permission: 'public', audit: 'domain' },
      schema: {
        hide,
        operationId: 'beginOAuth',
        tags: ['auth'],
        summary: 'Log in or sign up with a provider, in a browser',
        description:
          'Leads to the provider and from there to `{dashboard}/auth/{provider}/callback`: with `?error=…`, or with ' +
          '`#code=…` for POST /v1/auth/exchange.',
        security: [],
        params: providerParamsSchema,
        querystring: beginOAuthQuerySchema,
        response: { 302: redirected, ...errorResponses },
      },
    },
    async (request, reply) => {
      const provider = requireProvider(providers, request.params.provider);
      const elsewhere = atPublicUrl(request, settings.publicUrl);
      if (elsewhere) return reply.redirect(elsewhere.href, 302);
      const purpose = purposeOf(request.query);
      const landing = landingOf(settings, request, provider.id, purpose);
      return redirect(
        request,
        reply,
        () => landing,
        async () => {
          await rateLimits.countAddress('oauth', request.ip);
          return beginFlow(tokens, { request, reply, publicUrl: settings.publicUrl }, provider, purpose);
        },
      );
    },
  );

  app.get(
    '/auth/oauth/:provider/callback',
    {
      config: { permission: 'public', audit: 'domain' },
      schema: {
        hide,
        operationId: 'finishOAuth',
        tags: ['auth'],
        summary: 'Where a provider sends the browser back to',
        security: [],
        params: providerParamsSchema,
        querystring: oauthCallbackQuerySchema,
        response: { 302: redirected, ...errorResponses },
      },
    },
    async (request, reply) => {
      const provider = requireProvider(providers, request.params.provider);
      const { state, code, error } = request.query;
      let landing = landingOf(settings, request, provider.id, undefined);
      return redirect(
        request,
        reply,
        () => landing,
        async () => {
          const exchange = { request, reply, publicUrl: settings.publicUrl };
          const flow = state === undefined ? undefined : await takeFlow(tokens, exchange, provider.id, state);
          if (!flow) throw new LoginProblem(error === 'access_denied' ? 'access_denied' : 'invalid_state');
          landing = landingOf(settings, request, provider.id, flow.purpose);
          const url = callbackUrl(flow.secrets.redirectUri, request);
          const loginCode = await finishFlow(deps, provider, flow, { url, code, error }, actorOf(request));
          if (loginCode === undefined) return landing.plain();
          return landing.withCode(loginCode);
        },
      );
    },
  );
}

/** Where the code of a login is exchanged for its token. Below /v1. */
export function exchangeRoute(app: Server, deps: RouteDeps): void {
  const { tokens, settings, rateLimits } = deps;
  app.post(
    '/auth/exchange',
    {
      config: { permission: 'public', audit: 'domain', idempotency: 'ignored' },
      preHandler: limitCredentialPath(rateLimits, 'oauth'),
      schema: {
        operationId: 'exchangeLoginCode',
        tags: ['auth'],
        summary: 'Exchange the code of a login with a provider for its token',
        description:
          'Within 60 seconds, once, and only in the browser that began, or with the verifier of the program that did.',
        security: [],
        body: exchangeRequestSchema,
        response: { 200: authSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { code, verifier } = request.body;
      const exchange = { request, reply, publicUrl: settings.publicUrl };
      const login = await takeLoginCode(tokens, code, { browser: browserOf(exchange), verifier });
      clearFlowCookie(exchange);
      return completeLogin(deps, { request, reply }, login);
    },
  );
}

function purposeOf({ intent, invitation, cli_port, cli_state, cli_challenge }: BeginOAuthQuery): FlowPurpose {
  const receiver: Receiver =
    cli_port !== undefined && cli_state !== undefined && cli_challenge !== undefined
      ? { kind: 'program', port: cli_port, state: cli_state, challenge: cli_challenge }
      : { kind: 'page' };
  return intent === 'login' ? { kind: 'login', receiver } : { kind: 'sign_up', receiver, invitation };
}

/**
 * The same at the public address, where a browser came to another one: the provider sends it back to the public one,
 * and there it must have its cookie. Once only, since a proxy may hide what the browser asked for.
 */
function atPublicUrl(
  { query, url, protocol, host }: FastifyRequest<{ Querystring: BeginOAuthQuery }>,
  publicUrl: string | undefined,
): URL | undefined {
  if (publicUrl === undefined || query.at_public_url || new URL(publicUrl).origin === `${protocol}://${host}`)
    return undefined;
  const target = new URL(`${publicUrl}${url}`);
  target.searchParams.set('at_public_url', '1');
  return target;
}

/** The address that the provider was told, with what it put behind it: proxies may have changed the one that came. */
function callbackUrl(redirectUri: string, { url }: FastifyRequest): URL {
  const target = new URL(redirectUri);
  target.search = new URL(url, redirectUri).search;
  return target;
}

/** Sends the browser where the work says or, when that fails, to the page that tells why. */
async function redirect(
  request: FastifyRequest,
  reply: FastifyReply,
  landing: () => Landing,
  work: () => Promise<URL>,
): Promise<FastifyReply> {
  let target: URL;
  try {
    target = await work();
  } catch (error) {
    const problem = problemOf(error);
    if (problem === undefined) request.log.error({ err: error }, 'a login with a provider broke off');
    else request.log.info({ err: error }, 'a login with a provider was refused');
    target = landing().withProblem(problem ?? 'internal_error');
  }
  return reply.header('cache-control', 'no-store').header('referrer-policy', 'no-referrer').redirect(target.href, 302);
}
