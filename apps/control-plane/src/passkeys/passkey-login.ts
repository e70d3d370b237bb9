import { generateAuthenticationOptions, verifyAuthenticationResponse } from '@simplewebauthn/server';
import type { AuthBody } from '@wrenn/protocol/rest/auth';
import type { LoginCredential } from '@wrenn/protocol/rest/passkeys';
import { completeLogin, type LoginDeps, type LoginExchange } from '../identity/complete-login.ts';
import type { FleetingTokens } from '../shared/fleeting-tokens.ts';
import { CHALLENGE_LIFETIME_MS, refused, takeChallenge } from './challenge.ts';
import { countUse, findPasskeyByCredential, type Passkey } from './passkey-store.ts';
import { type RelyingParty, relyingParty } from './relying-party.ts';

/** What a browser asks an authenticator with, whoever it belongs to. */
export async function loginOptions(tokens: FleetingTokens, party: RelyingParty) {
  const token = { purpose: 'passkey_login', subject: '', lifetimeMs: CHALLENGE_LIFETIME_MS } as const;
  const challenge = await tokens.put(token);
  return generateAuthenticationOptions({
    rpID: party.id,
    challenge: new Uint8Array(Buffer.from(challenge, 'base64url')),
    timeout: CHALLENGE_LIFETIME_MS,
    userVerification: 'required',
  });
}

/**
 * Logs in whoever's passkey answered. It verifies its user, so that it stands for both factors.
 *
 * @throws WrennError `passkey_refused`, and as `completeLogin`
 */
export async function logInWithPasskey(
  deps: LoginDeps & { readonly tokens: FleetingTokens },
  exchange: LoginExchange,
  credential: LoginCredential,
): Promise<AuthBody> {
  const { db, settings } = deps;
  const { challenge } = await takeChallenge(deps.tokens, 'passkey_login', credential.response.clientDataJSON);
  const passkey = await findPasskeyByCredential(db, credential.id);
  if (!passkey || handleOf(credential) !== passkey.userId) throw refused('it is not known here');
  const counter = await verify(passkey, relyingParty(exchange.request, settings.publicUrl), challenge, credential);
  if (!(await countUse(db, passkey.id, counter))) throw refused('it was copied, or its answer was used before');
  return completeLogin(deps, exchange, { userId: passkey.userId, method: 'passkey', secondFactorDone: true });
}

/** The id of the user that it was made for; passkeys that tell who logs in have it. */
function handleOf({ response }: LoginCredential): string {
  return Buffer.from(response.userHandle ?? '', 'base64url').toString('utf8');
}

/** @returns the authenticator's count of uses */
async function verify(
  passkey: Passkey,
  party: RelyingParty,
  challenge: string,
  credential: LoginCredential,
): Promise<number> {
  const { authenticatorAttachment, response, ...rest } = credential;
  const { userHandle, ...signed } = response;
  try {
    const { verified, authenticationInfo } = await verifyAuthenticationResponse({
      response: {
        ...rest,
        response: { ...signed, ...(userHandle ? { userHandle } : {}) },
        ...(authenticatorAttachment ? { authenticatorAttachment } : {}),
      },
      expectedChallenge: challenge,
      expectedOrigin: party.origin,
      expectedRPID: party.id,
      credential: {
        id: passkey.credentialId,
        publicKey: new Uint8Array(passkey.publicKey),
        counter: passkey.counter,
        transports: passkey.transports,
      },
      requireUserVerification: true,
    });
    if (verified) return authenticationInfo.newCounter;
  } catch (cause) {
    throw refused('it did not answer this page, or without its user having been verified', cause);
  }
  throw refused('its signature is wrong');
}
