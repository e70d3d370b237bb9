import { generateRegistrationOptions, verifyRegistrationResponse } from '@simplewebauthn/server';
import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import type { RegistrationCredential } from '@wrenn/protocol/rest/passkeys';
import type { Actor } from '../access/actor.ts';
import type { SignedInUser } from '../access/principal.ts';
import type { Db } from '../database/database.ts';
import { lockUser } from '../identity/user-store.ts';
import type { FleetingTokens } from '../shared/fleeting-tokens.ts';
import { ALGORITHMS, CHALLENGE_LIFETIME_MS, refused, takeChallenge } from './challenge.ts';
import { recordOnPasskey } from './passkey-audit.ts';
import { countPasskeys, insertPasskey, listPasskeys, type Passkey } from './passkey-store.ts';
import type { RelyingParty } from './relying-party.ts';

/** More than anybody has devices; bounds what one account can store. */
const MAX_PASSKEYS = 50;

/** What passkeys are made with. */
export interface RegistrationDeps {
  readonly db: Db;
  readonly tokens: FleetingTokens;
}

/** What a browser makes a passkey with. Options that the user got before work no more. */
export async function registrationOptions({ db, tokens }: RegistrationDeps, user: SignedInUser, party: RelyingParty) {
  const challenge = await tokens.put({
    ...{ purpose: 'passkey_registration', subject: user.id, lifetimeMs: CHALLENGE_LIFETIME_MS },
    replaces: true,
  });
  const existing = await listPasskeys(db, user.id);
  return generateRegistrationOptions({
    rpName: 'Wrenn',
    rpID: party.id,
    userID: new TextEncoder().encode(user.id),
    userName: user.email,
    userDisplayName: user.name,
    challenge: new Uint8Array(Buffer.from(challenge, 'base64url')),
    timeout: CHALLENGE_LIFETIME_MS,
    attestationType: 'none',
    supportedAlgorithmIDs: ALGORITHMS,
    excludeCredentials: existing.map(({ credentialId, transports }) => ({ id: credentialId, transports })),
    // It alone must tell who logs in, and it stands for both factors.
    authenticatorSelection: { residentKey: 'required', userVerification: 'required' },
  });
}

/**
 * Keeps the passkey that a browser made.
 *
 * @throws WrennError `passkey_refused`; `conflict` when somebody has it already; `invalid_request` when the account has
 *   too many
 */
export async function addPasskey(
  { db, tokens }: RegistrationDeps,
  user: SignedInUser,
  actor: Actor,
  party: RelyingParty,
  { name, credential }: { readonly name: string; readonly credential: RegistrationCredential },
): Promise<Passkey> {
  const made = await verify(tokens, user, party, credential);
  return db.transaction(async (tx) => {
    // Of several at once, each counts those before it.
    await lockUser(tx, user.id);
    if ((await countPasskeys(tx, user.id)) >= MAX_PASSKEYS)
      throw new WrennError('invalid_request', { problem: `an account has at most ${MAX_PASSKEYS} passkeys` });
    const passkey = await insertPasskey(tx, {
      id: newId('pk'),
      userId: user.id,
      name,
      credentialId: made.id,
      publicKey: Buffer.from(made.publicKey),
      counter: made.counter,
      transports: credential.response.transports ?? [],
    });
    if (!passkey) throw new WrennError('conflict', { what: 'This passkey' });
    await recordOnPasskey(tx, actor, passkey, 'create');
    return passkey;
  });
}

async function verify(
  tokens: FleetingTokens,
  user: SignedInUser,
  party: RelyingParty,
  credential: RegistrationCredential,
) {
  const { challenge, subject } = await takeChallenge(
    tokens,
    'passkey_registration',
    credential.response.clientDataJSON,
  );
  if (subject !== user.id) throw refused('it was made for another account');
  const { authenticatorAttachment, response, ...rest } = credential;
  const { transports, ...made } = response;
  try {
    const { registrationInfo } = await verifyRegistrationResponse({
      response: {
        ...rest,
        response: { ...made, ...(transports ? { transports } : {}) },
        ...(authenticatorAttachment ? { authenticatorAttachment } : {}),
      },
      expectedChallenge: challenge,
      expectedOrigin: party.origin,
      expectedRPID: party.id,
      requireUserVerification: true,
      supportedAlgorithmIDs: ALGORITHMS,
    });
    if (registrationInfo) return registrationInfo.credential;
  } catch (cause) {
    throw refused('it was not made by this page, or without its user having been verified', cause);
  }
  throw refused('its attestation is not valid');
}
