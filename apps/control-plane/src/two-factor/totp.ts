import { Secret, TOTP } from 'otpauth';

/** What every authenticator knows: RFC 6238 with its defaults. */
const PARAMETERS = { algorithm: 'SHA1', digits: 6, period: 30 } as const;
/** Clocks of telephones may be off by one period. */
const WINDOW = 1;
const SECRET_BYTES = 20;

/** A new secret, in base32. */
export function newTotpSecret(): string {
  return new Secret({ size: SECRET_BYTES }).base32;
}

/** @param issuer the platform, as the authenticator shows it */
export function totpUri(secret: string, issuer: string, account: string): string {
  return new TOTP({ ...PARAMETERS, secret, issuer, label: account }).toString();
}

/**
 * The period that a code is of, counted from the epoch; undefined: of none near now.
 *
 * @param nowMs milliseconds since the epoch
 */
export function totpStep(secret: string, code: string, nowMs: number): number | undefined {
  const delta = TOTP.validate({
    ...PARAMETERS,
    secret: Secret.fromBase32(secret),
    token: code,
    timestamp: nowMs,
    window: WINDOW,
  });
  return delta === null ? undefined : TOTP.counter({ period: PARAMETERS.period, timestamp: nowMs }) + delta;
}
