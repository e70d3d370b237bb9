import { WrennError } from '@wrenn/protocol/errors';
import type { OAuthSettings } from '../settings.ts';
import { githubProvider } from './github.ts';
import { oidcProvider } from './oidc.ts';
import { type LoginProvider, PROVIDER_IDS, type ProviderId } from './provider.ts';

/** The providers that this platform is set up for. */
export type Providers = ReadonlyMap<string, LoginProvider>;

export function openProviders({ github, google, oidc }: OAuthSettings): Providers {
  const providers = [
    ...(github ? [githubProvider(github)] : []),
    ...(google ? [oidcProvider({ id: 'google', name: 'Google', ...google })] : []),
    ...(oidc ? [oidcProvider({ id: 'oidc', ...oidc })] : []),
  ];
  return new Map(providers.map((provider) => [provider.id, provider]));
}

/** @throws WrennError `provider_not_found` */
export function requireProvider(providers: Providers, id: string): LoginProvider {
  const provider = providers.get(id);
  if (!provider) throw new WrennError('provider_not_found', { provider: id });
  return provider;
}

/** Ids of the providers that can be logged in with. */
export function configuredProviders(settings: OAuthSettings): ProviderId[] {
  return PROVIDER_IDS.filter((id) => settings[id] !== undefined);
}

/** What a login page offers, in the order in which it does. */
export function offeredProviders(settings: OAuthSettings): { id: ProviderId; name: string; login_path: string }[] {
  const names = { github: 'GitHub', google: 'Google', oidc: settings.oidc?.name ?? '' };
  return configuredProviders(settings).map((id) => ({ id, name: names[id], login_path: `/auth/oauth/${id}` }));
}
