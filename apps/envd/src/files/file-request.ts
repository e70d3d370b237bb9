import type { IncomingMessage } from 'node:http';
import { WrennError } from '@wrenn/protocol/errors';
import { effectiveAccount, type GuestState } from '../guest-state.ts';
import { secretsEqual, signRequest } from '../server/access-token.ts';
import type { Account } from '../users/accounts.ts';

/** What a request to /files names, after it has shown that it may. */
export interface FileRequest {
  /** As it was given. */
  readonly path: string | undefined;
  readonly account: Account;
}

/**
 * Checks the access token or the signature of a request to /files, and reads whom and what it names. The user comes from
 * the query, as in E2B's protocol, because links cannot carry headers.
 */
export function authorizeFileRequest(
  request: IncomingMessage,
  query: URLSearchParams,
  operation: 'read' | 'write',
  state: GuestState,
): FileRequest {
  const path = query.get('path') ?? undefined;
  const user = query.get('username') ?? undefined;
  if (state.accessToken !== undefined) {
    const token = request.headers['x-access-token'];
    if (typeof token === 'string' && token !== '') {
      if (!secretsEqual(state.accessToken, token)) throw new WrennError('unauthorized');
    } else {
      checkSignature(query, { path: path ?? '', operation, user: user ?? '' }, state.accessToken);
    }
  }
  return { path, account: effectiveAccount(state, user) };
}

function checkSignature(
  query: URLSearchParams,
  named: { path: string; operation: 'read' | 'write'; user: string },
  token: string,
): void {
  const signature = query.get('signature');
  if (signature === null) throw new WrennError('invalid_signature', { problem: 'missing signature query parameter' });
  const text = query.get('signature_expiration');
  if (text !== null && !/^-?\d{1,15}$/.test(text)) {
    throw new WrennError('invalid_request', { problem: 'signature_expiration is not a Unix time in seconds' });
  }
  const expiration = text === null ? undefined : Number(text);
  if (!secretsEqual(signRequest({ ...named, expiration }, token), signature)) {
    throw new WrennError('invalid_signature', { problem: 'invalid signature' });
  }
  if (expiration !== undefined && expiration < Math.floor(Date.now() / 1000)) {
    throw new WrennError('invalid_signature', { problem: 'signature is already expired' });
  }
}
