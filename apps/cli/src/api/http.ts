import type { z } from 'zod';
import { CliError, messageOf, systemCodeOf } from '../cli-error.ts';
import type { Connection } from '../connection.ts';
import { readApiError } from './api-error.ts';
import { traceFromEnvironment } from './trace-environment.ts';

/** How long a call may take that only asks for a state. */
export const QUERY_TIMEOUT_MS = 60_000;

/** Requests to one API with its credential. Each ends by its signal and fails with an ApiError or a CliError. */
export interface ApiHttp {
  readonly connection: Connection;
  send(path: string, init: RequestInit, signal: AbortSignal): Promise<Response>;
  /** The same for an answer in JSON. `timeoutMs` is that of a query unless told. */
  json<Schema extends z.ZodType>(
    schema: Schema,
    path: string,
    init: RequestInit,
    signal: AbortSignal,
    timeoutMs?: number,
  ): Promise<z.output<Schema>>;
  /** All of a list, over its pages. */
  list<Item extends z.ZodType>(schema: z.ZodArray<Item>, path: string, signal: AbortSignal): Promise<z.output<Item>[]>;
}

export function createApiHttp(connection: Connection): ApiHttp {
  const send: ApiHttp['send'] = async (path, init, signal) => {
    const headers = new Headers(init.headers);
    if (connection.credential !== undefined) headers.set('Authorization', `Bearer ${connection.credential}`);
    for (const [name, value] of Object.entries(traceFromEnvironment())) headers.set(name, value);
    const response = await fetchOrExplain(`${connection.baseUrl}${path}`, { ...init, headers }, signal);
    if (!response.ok) throw await readApiError(response);
    return response;
  };
  return {
    connection,
    send,
    json: async (schema, path, init, signal, timeoutMs = QUERY_TIMEOUT_MS) => {
      const response = await send(path, init, withTimeout(signal, timeoutMs));
      return checkShape(schema, await response.json(), path);
    },
    list: async (schema, path, signal) => {
      const all = [];
      for (let next: string | undefined = path; next !== undefined; ) {
        const response: Response = await send(next, {}, withTimeout(signal, QUERY_TIMEOUT_MS));
        all.push(...checkShape(schema, await response.json(), path));
        const cursor = response.headers.get('x-next-cursor');
        next =
          cursor === null ? undefined : `${path}${path.includes('?') ? '&' : '?'}cursor=${encodeURIComponent(cursor)}`;
      }
      return all;
    },
  };
}

/** Path of a capsule in the API, and of what is below it. */
export function capsulePath(id: string, rest = ''): string {
  return `/v1/capsules/${encodeURIComponent(id)}${rest}`;
}

/** What a failed attempt to reach the API means to a person. */
export function explainUnreachable(baseUrl: string, error: unknown): CliError {
  const code = systemCodeOf(error);
  const problem: Record<string, string> = {
    ECONNREFUSED: 'nothing listens there',
    ENOTFOUND: 'the host name is not known',
    EAI_AGAIN: 'the host name cannot be looked up',
    ECONNRESET: 'it closed the connection',
    ETIMEDOUT: 'it does not answer',
  };
  return new CliError(
    `The API at ${baseUrl} cannot be reached: ${(code && problem[code]) ?? code ?? messageOf(rootCause(error))}.`,
    'Start the platform with `wrenn up`, or set WRENN_BASE_URL to where it runs.',
    { cause: error },
  );
}

/** fetch says "fetch failed", and why in its cause. */
function rootCause(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? rootCause(error.cause) : error;
}

export async function fetchOrExplain(url: string, init: RequestInit, signal: AbortSignal): Promise<Response> {
  try {
    return await fetch(url, { ...init, signal });
  } catch (error) {
    if (error instanceof Error && error.name === 'TimeoutError') {
      throw new CliError(
        `${url} did not answer in time.`,
        'What was begun goes on: `wrenn ls` shows how it stands, `wrenn doctor` whether the platform is up.',
      );
    }
    signal.throwIfAborted();
    throw explainUnreachable(new URL(url).origin, error);
  }
}

export function checkShape<Schema extends z.ZodType>(schema: Schema, body: unknown, path: string): z.output<Schema> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  throw new CliError(
    `The answer of ${path} is not what this version of wrenn understands.`,
    'Use a wrenn command of the same version as the platform.',
    { cause: result.error },
  );
}

export function post(body: unknown): RequestInit {
  return { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}

export function withTimeout(signal: AbortSignal, timeoutMs: number): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
}

export function query(values: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(values).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return given.length === 0 ? '' : `?${new URLSearchParams(given)}`;
}
