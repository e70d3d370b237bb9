/** What a provider says of whoever logged in there. */
export interface ProviderAccount {
  /** The provider's own id of the account, which never changes. */
  readonly subject: string;
  /** Only where the provider has verified it. */
  readonly email: string | undefined;
  readonly name: string | undefined;
}

/** What one login is recognised by. */
export interface LoginSecrets {
  readonly state: string;
  readonly nonce: string;
  /** PKCE's code_verifier. */
  readonly verifier: string;
  /** Where the provider sends the browser back to. */
  readonly redirectUri: string;
}

/** Somewhere else that people have an account and can log in with it. */
export interface LoginProvider {
  readonly id: ProviderId;
  /** For people. */
  readonly name: string;
  /**
   * Where to send the browser.
   *
   * @throws ProviderError
   */
  authorizationUrl(secrets: LoginSecrets): Promise<URL>;
  /**
   * Whose login brought the browser back.
   *
   * @param callbackUrl with the query that the provider put there
   * @throws ProviderError
   */
  exchange(callbackUrl: URL, secrets: LoginSecrets): Promise<ProviderAccount>;
}

export const PROVIDER_IDS = ['github', 'google', 'oidc'] as const;
export type ProviderId = (typeof PROVIDER_IDS)[number];

/** How long one request to a provider may take. */
export const PROVIDER_TIMEOUT_MS = 10_000;

/** The provider did not answer, or not as its protocol says. */
export class ProviderError extends Error {
  override readonly name = 'ProviderError';
}
