import { WrennError } from '@wrenn/protocol/errors';
import { isId } from '@wrenn/protocol/ids';
import type { CapsuleBody } from '@wrenn/protocol/rest/capsule';
import type { ApiClient } from './api/client.ts';
import { CliError, EXIT } from './cli-error.ts';

/**
 * The id that a person means by a full id or the beginning of one, with or without `cl-`. A full id is taken as it is,
 * without a question to the API.
 */
export async function resolveCapsuleId(api: ApiClient, ref: string, signal: AbortSignal): Promise<string> {
  if (isId('cl', ref)) return ref;
  return matchCapsuleId(ref, await api.listCapsules(signal, 'all'));
}

/** The same for several, each once. All are understood, or none: a command begins with no capsule before that. */
export async function resolveCapsuleIds(
  api: ApiClient,
  refs: readonly string[],
  signal: AbortSignal,
): Promise<string[]> {
  if (refs.every((ref) => isId('cl', ref))) return [...new Set(refs)];
  const capsules = await api.listCapsules(signal, 'all');
  return [...new Set(refs.map((ref) => (isId('cl', ref) ? ref : matchCapsuleId(ref, capsules))))];
}

/**
 * The one capsule whose id begins with `ref`. Those that have ended count only when no living one matches.
 *
 * @throws WrennError `capsule_not_found`, or CliError when several match.
 */
export function matchCapsuleId(ref: string, capsules: readonly Pick<CapsuleBody, 'id' | 'status'>[]): string {
  const prefix = ref.startsWith('cl-') ? ref : `cl-${ref}`;
  const matches = ref === '' ? [] : capsules.filter((capsule) => capsule.id.startsWith(prefix));
  const living = matches.filter((capsule) => capsule.status !== 'stopped');
  const candidates = living.length > 0 ? living : matches;
  const [first, second] = candidates;
  if (first === undefined) throw new WrennError('capsule_not_found', { id: ref });
  if (second === undefined) return first.id;
  const shown = candidates.slice(0, 5).map((capsule) => capsule.id);
  const more = candidates.length > shown.length ? `, and ${candidates.length - shown.length} more` : '';
  throw new CliError(`"${ref}" is the beginning of several ids: ${shown.join(', ')}${more}.`, 'Give more of the id.', {
    exitCode: EXIT.usage,
  });
}
