import { WrennError } from '@wrenn/protocol/errors';
import { connectProviderSchema, providerParamsSchema } from '@wrenn/protocol/rest/oauth';
import { actorOf } from '../access/actor.ts';
import { requireSignedIn } from '../access/principal.ts';
import { errorResponses, noContent, type RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';
import { unlinkProvider } from './link.ts';
import { beginFlow } from './oauth-flow.ts';
import { ProviderError } from './provider.ts';
import { configuredProviders, type Providers, requireProvider } from './providers.ts';

/** Below /v1. */
export function linkRoutes(app: Server, deps: RouteDeps, providers: Providers): void {
  const { db, settings, tokens } = deps;

  app.get(
    '/me/providers/:provider/connect',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'connectProvider',
        tags: ['account'],
        summary: 'Begin to link an account of a provider',
        description:
          'The answer has a cookie for the browser that is then sent to `auth_url`. It ends at the same page as a login, ' +
          'with `?intent=link`, and `error` where there is one.',
        params: providerParamsSchema,
        response: { 200: connectProviderSchema, ...errorResponses },
      },
    },
    async (request, reply) => {
      const provider = requireProvider(providers, request.params.provider);
      const { id: userId, sessionId } = requireSignedIn(request);
      const exchange = { request, reply, publicUrl: settings.publicUrl };
      try {
        const url = await beginFlow(tokens, exchange, provider, { kind: 'link', userId, sessionId });
        return { auth_url: url.href };
      } catch (cause) {
        if (!(cause instanceof ProviderError)) throw cause;
        throw new WrennError('provider_unavailable', { provider: provider.id }, { cause });
      }
    },
  );

  app.delete(
    '/me/providers/:provider',
    {
      config: { permission: 'account', audit: 'domain' },
      schema: {
        operationId: 'unlinkProvider',
        tags: ['account'],
        summary: 'Unlink a provider',
        description: 'Refused for the only way to log in.',
        params: providerParamsSchema,
        response: { 204: noContent, ...errorResponses },
      },
    },
    async (request, reply) => {
      const { id } = requireSignedIn(request);
      await unlinkProvider(db, id, actorOf(request), request.params.provider, configuredProviders(settings.oauth));
      reply.code(204);
      return null;
    },
  );
}
