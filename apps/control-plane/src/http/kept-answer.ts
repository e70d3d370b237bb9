import { z } from 'zod';
import type { KeyRing } from '../secrets/key-ring.ts';
import type { RequestName } from './idempotency-store.ts';

/** Larger answers are not kept: commands may print much. */
const LIMIT_CHARACTERS = 1024 * 1024;

/** Headers that belong to what was answered, rather than to the connection. */
const KEPT_HEADERS = ['content-type', 'location', 'set-cookie'] as const;

const keptSchema = z.object({
  headers: z.partialRecord(z.enum(KEPT_HEADERS), z.union([z.string(), z.array(z.string())])),
  body: z.string().nullable(),
});

/** As much of an error's answer as matters here, as JSON. */
const errorSchema = z
  .string()
  .transform((text, context): unknown => {
    try {
      return JSON.parse(text);
    } catch {
      context.addIssue('no JSON');
      return z.NEVER;
    }
  })
  .pipe(z.object({ error: z.object({ retryable: z.boolean() }) }));

export type KeptAnswer = z.output<typeof keptSchema>;

/** Whether the same request would be answered so again: not where a change elsewhere or time alone makes it succeed. */
export function isFinal(status: number, payload: unknown): boolean {
  if (status < 400) return true;
  if (status >= 500 || [401, 403, 408, 429].includes(status)) return false;
  return !isRetryable(payload);
}

function isRetryable(payload: unknown): boolean {
  if (typeof payload !== 'string') return false;
  const { success, data } = errorSchema.safeParse(payload);
  return success && data.error.retryable;
}

/** The answer as the database keeps it; null when it cannot be kept. */
export function sealAnswer(
  keyRing: KeyRing,
  name: RequestName,
  headers: Readonly<Record<string, unknown>>,
  payload: unknown,
): string | null {
  const body = payload ?? null;
  if (body !== null && (typeof body !== 'string' || body.length > LIMIT_CHARACTERS)) return null;
  const kept = Object.fromEntries(
    KEPT_HEADERS.flatMap((header) => (headers[header] ? [[header, headers[header]]] : [])),
  );
  return keyRing.encrypt(JSON.stringify({ headers: kept, body }), placeOf(name));
}

/** Undefined when the key that encrypted it is there no more. */
export function openAnswer(keyRing: KeyRing, name: RequestName, sealed: string): KeptAnswer | undefined {
  let text: string;
  try {
    text = keyRing.decrypt(sealed, placeOf(name));
  } catch {
    return undefined;
  }
  return keptSchema.parse(JSON.parse(text));
}

/** What the sealed text is bound to. */
export function placeOf({ owner, operation, key }: RequestName): string {
  return `request:${owner}:${operation}:${key}`;
}
