import { decodeClientDataJSON } from '@simplewebauthn/server/helpers';
import { WrennError } from '@wrenn/protocol/errors';
import type { FleetingTokens } from '../shared/fleeting-tokens.ts';

/** EdDSA, ES256 and RS256, by their COSE numbers: what authenticators have and Node verifies without experiments. */
export const ALGORITHMS = [-8, -7, -257];

/** How long somebody may take to touch their authenticator. */
export const CHALLENGE_LIFETIME_MS = 5 * 60_000;

/**
 * Takes the challenge that an authenticator answered. It is a token that works once.
 *
 * @param clientDataJson in base64url
 * @throws WrennError `passkey_refused`
 */
export async function takeChallenge(
  tokens: FleetingTokens,
  purpose: 'passkey_login' | 'passkey_registration',
  clientDataJson: string,
): Promise<{ readonly challenge: string; readonly subject: string }> {
  const challenge = challengeOf(clientDataJson);
  const taken = challenge === undefined ? undefined : await tokens.take(purpose, challenge);
  if (challenge === undefined || !taken) throw refused('its answer is too old, or was used before');
  return { challenge, subject: taken.subject };
}

function challengeOf(clientDataJson: string): string | undefined {
  try {
    const { challenge } = decodeClientDataJSON(clientDataJson);
    return typeof challenge === 'string' ? challenge : undefined;
  } catch (cause) {
    throw refused('its answer cannot be read', cause);
  }
}

export function refused(problem: string, cause?: unknown): WrennError {
  return new WrennError('passkey_refused', { problem }, { cause });
}
