import type { OAuthProblem } from '@wrenn/protocol/rest/oauth';
import type { FastifyRequest } from 'fastify';
import type { Settings } from '../settings.ts';
import { type FlowPurpose, ownUrl } from './oauth-flow.ts';
import type { ProviderId } from './provider.ts';

/** Where a browser ends that came from a provider. */
export interface Landing {
  withCode(code: string): URL;
  withProblem(problem: OAuthProblem): URL;
  /** What was asked for is done, and there is nothing to hand over. */
  plain(): URL;
}

const INTENTS = { login: 'login', sign_up: 'signup', link: 'link' } as const;

/**
 * The callback page of the dashboard, or the program that waits on the browser's machine.
 *
 * @param purpose undefined: nobody knows what the browser was sent away for
 */
export function landingOf(
  settings: Pick<Settings, 'publicUrl' | 'oauth'>,
  request: FastifyRequest,
  provider: ProviderId,
  purpose: FlowPurpose | undefined,
): Landing {
  if (purpose && purpose.kind !== 'link' && purpose.receiver.kind === 'program') {
    const { port, state } = purpose.receiver;
    const at = (query: Record<string, string>) =>
      new URL(`http://127.0.0.1:${port}/callback?${new URLSearchParams({ ...query, state })}`);
    return { withCode: (code) => at({ code }), withProblem: (error) => at({ error }), plain: () => at({}) };
  }
  const base = settings.oauth.redirectUrl ?? ownUrl({ request, publicUrl: settings.publicUrl });
  const at = (query: Record<string, string>, fragment: Record<string, string> = {}) => {
    const url = new URL(`${base}/auth/${provider}/callback`);
    url.search = new URLSearchParams({ ...query, ...(purpose ? { intent: INTENTS[purpose.kind] } : {}) }).toString();
    url.hash = new URLSearchParams(fragment).toString();
    return url;
  };
  return {
    // Behind the #: it gets into no log of a server, and into no Referer.
    withCode: (code) => at({}, { code }),
    withProblem: (error) => at({ error }),
    plain: () => at({}),
  };
}
