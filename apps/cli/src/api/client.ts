import type { ReadableStream } from 'node:stream/web';
import {
  type CapsuleBody,
  type CreateCapsuleBody,
  capsuleListSchema,
  capsuleSchema,
} from '@wrenn/protocol/rest/capsule';
import { type ProcessInfoBody, processListSchema } from '@wrenn/protocol/rest/exec';
import { type FileEntry, listDirResponseSchema } from '@wrenn/protocol/rest/files';
import { type Ready, readySchema } from '@wrenn/protocol/rest/server';
import type { z } from 'zod';
import { CliError, messageOf, systemCodeOf } from '../cli-error.ts';
import type { Connection } from '../connection.ts';
import { readApiError } from './api-error.ts';

/** A guest file that is being read. */
export interface FileDownload {
  readonly body: ReadableStream<Uint8Array>;
  /** From Content-Length; undefined when the server does not say. */
  readonly sizeBytes: number | undefined;
}

/** Wrenn's REST API. Every call ends by its signal and fails with an ApiError or a CliError. */
export interface ApiClient {
  readonly connection: Connection;
  createCapsule(body: CreateCapsuleBody, signal: AbortSignal): Promise<CapsuleBody>;
  /** `statuses`: states with commas between them, or `all`; the server's default is all but stopped and error. */
  listCapsules(signal: AbortSignal, statuses?: string): Promise<CapsuleBody[]>;
  destroyCapsule(id: string, signal: AbortSignal): Promise<void>;
  /** The last bytes of the guest's console. */
  readConsole(id: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array>;
  listProcesses(id: string, signal: AbortSignal): Promise<ProcessInfoBody[]>;
  listDir(id: string, path: string, signal: AbortSignal, user?: string): Promise<FileEntry[]>;
  readFile(id: string, path: string, signal: AbortSignal, user?: string): Promise<FileDownload>;
  /** Replaces the file; folders on the way are made. */
  writeFile(
    id: string,
    path: string,
    body: ReadableStream<Uint8Array>,
    signal: AbortSignal,
    user?: string,
  ): Promise<void>;
  ready(signal: AbortSignal): Promise<Ready>;
}

/** How long a call may take that only asks for a state. */
const QUERY_TIMEOUT_MS = 60_000;
/** A start may wait for the first memory snapshot of its shape, which takes minutes under emulation. */
const CREATE_TIMEOUT_MS = 290_000;
const DESTROY_TIMEOUT_MS = 120_000;

export function createApiClient(connection: Connection): ApiClient {
  const send = async (path: string, init: RequestInit, signal: AbortSignal): Promise<Response> => {
    const headers = new Headers(init.headers);
    headers.set('X-API-Key', connection.apiKey);
    const response = await fetchOrExplain(`${connection.baseUrl}${path}`, { ...init, headers }, signal);
    if (!response.ok) throw await readApiError(response);
    return response;
  };
  const json = async <Schema extends z.ZodType>(
    schema: Schema,
    path: string,
    init: RequestInit,
    signal: AbortSignal,
    timeoutMs = QUERY_TIMEOUT_MS,
  ): Promise<z.output<Schema>> => {
    const response = await send(path, init, AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]));
    return checkShape(schema, await response.json(), path);
  };
  const capsulePath = (id: string, rest = '') => `/v1/capsules/${encodeURIComponent(id)}${rest}`;

  return {
    connection,
    createCapsule: (body, signal) => json(capsuleSchema, '/v1/capsules', post(body), signal, CREATE_TIMEOUT_MS),
    listCapsules: (signal, statuses) =>
      json(capsuleListSchema, `/v1/capsules${query({ status: statuses })}`, {}, signal),
    destroyCapsule: async (id, signal) => {
      await send(capsulePath(id), { method: 'DELETE' }, withTimeout(signal, DESTROY_TIMEOUT_MS));
    },
    readConsole: async (id, maxBytes, signal) => {
      const path = capsulePath(id, `/logs${query({ max_bytes: String(maxBytes) })}`);
      return (await send(path, {}, withTimeout(signal, QUERY_TIMEOUT_MS))).bytes();
    },
    listProcesses: async (id, signal) =>
      (await json(processListSchema, capsulePath(id, '/processes'), {}, signal)).processes,
    listDir: async (id, path, signal, user) => {
      const request = post({ path, ...(user === undefined ? {} : { user }) });
      return (await json(listDirResponseSchema, capsulePath(id, '/files/list'), request, signal)).entries;
    },
    readFile: async (id, path, signal, user) => {
      const request = post({ path, ...(user === undefined ? {} : { user }) });
      const response = await send(capsulePath(id, '/files/stream/read'), request, signal);
      if (response.body === null) throw new CliError(`The API sent no content for ${path}.`);
      const length = response.headers.get('content-length');
      return { body: response.body, sizeBytes: length === null ? undefined : Number(length) };
    },
    writeFile: async (id, path, body, signal, user) => {
      const init: RequestInit = {
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream' },
        body,
        duplex: 'half',
      };
      await send(capsulePath(id, `/files/stream/write${query({ path, user })}`), init, signal);
    },
    ready: async (signal) => {
      const response = await fetchOrExplain(`${connection.baseUrl}/ready`, {}, withTimeout(signal, QUERY_TIMEOUT_MS));
      // 503 carries what is missing in the same shape.
      if (!response.ok && response.status !== 503) throw await readApiError(response);
      return checkShape(readySchema, await response.json(), '/ready');
    },
  };
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

async function fetchOrExplain(url: string, init: RequestInit, signal: AbortSignal): Promise<Response> {
  try {
    return await fetch(url, { ...init, signal });
  } catch (error) {
    if (error instanceof Error && error.name === 'TimeoutError') {
      throw new CliError(
        `${url} did not answer in time.`,
        'Try again; `wrenn doctor` shows whether the platform is up.',
      );
    }
    signal.throwIfAborted();
    throw explainUnreachable(new URL(url).origin, error);
  }
}

function checkShape<Schema extends z.ZodType>(schema: Schema, body: unknown, path: string): z.output<Schema> {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  throw new CliError(
    `The answer of ${path} is not what this version of wrenn understands.`,
    'Use a wrenn command of the same version as the platform.',
    { cause: result.error },
  );
}

function post(body: unknown): RequestInit {
  return { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}

function withTimeout(signal: AbortSignal, timeoutMs: number): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
}

function query(values: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(values).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return given.length === 0 ? '' : `?${new URLSearchParams(given)}`;
}
