import { createHash } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import { z } from 'zod';
import type { FleetingTokens } from '../shared/fleeting-tokens.ts';

/** From the redirect to the request of the page that it leads to. */
const LIFETIME_MS = 60_000;

const dataSchema = z.object({
  method: z.string(),
  /** What whoever brings the code must show, so that a code of somebody else's login is of no use. */
  proof: z.discriminatedUnion('kind', [
    /** The cookie of the browser that began; its SHA-256. */
    z.object({ kind: z.literal('browser'), hash: z.string() }),
    /** What this is the SHA-256 of, in base64url. */
    z.object({ kind: z.literal('verifier'), challenge: z.string() }),
  ]),
});

type CodeData = z.output<typeof dataSchema>;

/** A login that a code stands for. */
export interface CodeLogin {
  readonly userId: string;
  /** Id of the provider. */
  readonly method: string;
}

export function putLoginCode(
  tokens: FleetingTokens,
  { userId, method }: CodeLogin,
  proof: CodeData['proof'],
): Promise<string> {
  const data: CodeData = { method, proof };
  return tokens.put({ purpose: 'login_code', subject: userId, data, lifetimeMs: LIFETIME_MS });
}

/**
 * Takes a code: it works once, also when the proof is wrong.
 *
 * @param given what the request shows: hash of its cookie, and the verifier
 * @throws WrennError `invalid_token`
 */
export async function takeLoginCode(
  tokens: FleetingTokens,
  code: string,
  given: { readonly browser: string | undefined; readonly verifier: string | undefined },
): Promise<CodeLogin> {
  const taken = await tokens.take('login_code', code);
  if (!taken) throw new WrennError('invalid_token');
  const { method, proof } = dataSchema.parse(taken.data);
  const isProven =
    proof.kind === 'browser'
      ? given.browser === proof.hash
      : given.verifier !== undefined && challengeOf(given.verifier) === proof.challenge;
  if (!isProven) throw new WrennError('invalid_token');
  return { userId: taken.subject, method };
}

function challengeOf(verifier: string): string {
  return createHash('sha256').update(verifier).digest('base64url');
}
