import { WrennError } from '@wrenn/protocol/errors';
import type { Heartbeat, refreshHostRequestSchema, registerHostRequestSchema } from '@wrenn/protocol/rest/hosts';
import { z } from 'zod';
import { type IssuedCredentials, issuedSchema } from './credentials.ts';

const REQUEST_TIMEOUT_MS = 15_000;
/** More of an answer that nobody can read is of no use. */
const EXCERPT_CHARACTERS = 200;

const errorSchema = z.object({ error: z.object({ reason: z.string(), details: z.unknown().optional() }) });

/** A control plane of before says less, one of later more. */
const heartbeatReplySchema = z.object({
  status: z.string().optional().catch(undefined),
  renew: z.boolean().catch(false),
  control_planes: z.array(z.string()).catch([]),
  clock_offset_ms: z.number().optional().catch(undefined),
});
export type HeartbeatReply = Readonly<z.output<typeof heartbeatReplySchema>>;

/** The control plane could not be asked, or whatever answered is no control plane. Worth another try. */
export class ControlPlaneError extends Error {
  override readonly name = 'ControlPlaneError';
}

/** Whether the same request may be answered otherwise later, without anybody doing something. */
export function isTransient(error: unknown): boolean {
  return error instanceof WrennError ? error.retryable || error.http >= 500 : error instanceof ControlPlaneError;
}

/** `http://cp-host:8000`, with a path where a proxy puts one before. */
export const controlPlaneUrl = z.string().transform((text, ctx): string => {
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol) && !url.username && !url.search && !url.hash) {
    return `${url.origin}${url.pathname}`.replace(/\/+$/, '');
  }
  ctx.addIssue({
    code: 'custom',
    message: `"${text}" is no address of a control plane; write "https://wrenn.example.com"`,
  });
  return z.NEVER;
});

/**
 * What an agent asks its control plane. Every request ends within 15 s.
 *
 * Throws WrennError for what a control plane refuses, ControlPlaneError for everything else that can go wrong.
 */
export class ControlPlaneClient {
  readonly baseUrl: string;

  constructor(baseUrl: string) {
    this.baseUrl = baseUrl;
  }

  async register(body: z.input<typeof registerHostRequestSchema>, signal: AbortSignal): Promise<IssuedCredentials> {
    return this.#issued(await this.#post('/v1/hosts/register', body, {}, signal));
  }

  async refresh(body: z.input<typeof refreshHostRequestSchema>, signal: AbortSignal): Promise<IssuedCredentials> {
    return this.#issued(await this.#post('/v1/hosts/auth/refresh', body, {}, signal));
  }

  async heartbeat(hostId: string, token: string, body: Heartbeat, signal: AbortSignal): Promise<HeartbeatReply> {
    const headers = { 'x-host-token': token };
    const answer = await this.#post(`/v1/hosts/${encodeURIComponent(hostId)}/heartbeat`, body, headers, signal);
    const read = heartbeatReplySchema.safeParse(answer ?? {});
    if (!read.success) throw new ControlPlaneError(`${this.baseUrl} answered a heartbeat with something else`);
    return read.data;
  }

  #issued(answer: unknown): IssuedCredentials {
    const read = issuedSchema.safeParse(answer);
    if (read.success) return read.data;
    throw new ControlPlaneError(`${this.baseUrl} answered with no credentials`, { cause: read.error });
  }

  /** @returns the JSON of the answer; undefined where it has no content */
  async #post(path: string, body: object, headers: Record<string, string>, signal: AbortSignal): Promise<unknown> {
    let status: number;
    let location: string | null;
    let text: string;
    try {
      const answer = await fetch(`${this.baseUrl}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'application/json', ...headers },
        body: JSON.stringify(body),
        // Followed, a POST may become a GET, and credentials go to another server.
        redirect: 'manual',
        signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]),
      });
      status = answer.status;
      location = answer.headers.get('location');
      text = await answer.text();
    } catch (cause) {
      signal.throwIfAborted();
      throw new ControlPlaneError(`${this.baseUrl} cannot be reached: ${reasonOf(cause)}`, { cause });
    }
    if (status >= 300 && status < 400) {
      throw new ControlPlaneError(`${this.baseUrl} redirects to ${location}; set WRENN_CP_URL to where it leads`);
    }
    if (status === 204) return undefined;
    const json = parseJson(text);
    if (status < 300 && json !== undefined) return json;
    const refusal = errorSchema.safeParse(json);
    const known = refusal.success ? WrennError.fromBody(refusal.data.error) : undefined;
    if (known) throw known;
    throw new ControlPlaneError(`${this.baseUrl} answered with ${status}: ${text.slice(0, EXCERPT_CHARACTERS)}`);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A page of some proxy; whoever asked says what came.
    return undefined;
  }
}

/** Of a failed fetch only the cause says what happened. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  if (cause instanceof Error) return cause.message || ((cause as NodeJS.ErrnoException).code ?? cause.name);
  return error.message;
}
