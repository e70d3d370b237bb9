import type { ReadableStream } from 'node:stream/web';
import {
  type CapsuleBody,
  type CreateCapsuleBody,
  capsuleListSchema,
  capsuleSchema,
} from '@wrenn/protocol/rest/capsule';
import {
  type ExecBackgroundResponse,
  type ExecBody,
  execBackgroundResponseSchema,
  type ProcessInfoBody,
  processListSchema,
} from '@wrenn/protocol/rest/exec';
import { type FileEntry, listDirResponseSchema } from '@wrenn/protocol/rest/files';
import { type Ready, readySchema } from '@wrenn/protocol/rest/server';
import { CliError } from '../cli-error.ts';
import type { Connection } from '../connection.ts';
import { type AccountCalls, accountCalls } from './account.ts';
import { type AdminCalls, adminCalls } from './admin.ts';
import { readApiError } from './api-error.ts';
import { type ChannelCalls, channelCalls } from './channels.ts';
import { type ChartCalls, chartCalls } from './charts.ts';
import { type HostCalls, hostCalls } from './hosts.ts';
import {
  capsulePath,
  checkShape,
  createApiHttp,
  fetchOrExplain,
  post,
  QUERY_TIMEOUT_MS,
  query,
  withTimeout,
} from './http.ts';
import { type KeyCalls, keyCalls } from './keys.ts';
import { type SleepCalls, sleepCalls } from './sleep.ts';
import { type TeamCalls, teamCalls } from './teams.ts';
import { type UsageCalls, usageCalls } from './usage.ts';

/** A guest file that is being read. */
export interface FileDownload {
  readonly body: ReadableStream<Uint8Array>;
  /** From Content-Length; undefined when the server does not say. */
  readonly sizeBytes: number | undefined;
}

/** Wrenn's REST API. Every call ends by its signal and fails with an ApiError or a CliError. */
export interface ApiClient
  extends SleepCalls,
    AccountCalls,
    TeamCalls,
    KeyCalls,
    ChannelCalls,
    AdminCalls,
    HostCalls,
    UsageCalls,
    ChartCalls {
  readonly connection: Connection;
  createCapsule(body: CreateCapsuleBody, signal: AbortSignal): Promise<CapsuleBody>;
  /** `statuses`: states with commas between them, or `all`; the server's default is all but stopped and error. */
  listCapsules(signal: AbortSignal, statuses?: string): Promise<CapsuleBody[]>;
  destroyCapsule(id: string, signal: AbortSignal): Promise<void>;
  /** The last bytes of the guest's console. */
  readConsole(id: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array>;
  /** Starts a command that goes on by itself. */
  startCommand(
    id: string,
    command: Pick<ExecBody, 'cmd' | 'args'>,
    signal: AbortSignal,
  ): Promise<ExecBackgroundResponse>;
  listProcesses(id: string, signal: AbortSignal): Promise<ProcessInfoBody[]>;
  /** Kills a process and its children. @param selector pid or tag */
  killProcess(id: string, selector: string, signal: AbortSignal): Promise<void>;
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

/** A start may wait for the first memory snapshot of its shape, which takes minutes under emulation. */
const CREATE_TIMEOUT_MS = 290_000;
const DESTROY_TIMEOUT_MS = 120_000;

export function createApiClient(connection: Connection): ApiClient {
  const http = createApiHttp(connection);
  const { send, json } = http;

  return {
    connection,
    ...sleepCalls(http),
    ...accountCalls(http),
    ...teamCalls(http),
    ...keyCalls(http),
    ...channelCalls(http),
    ...adminCalls(http),
    ...hostCalls(http),
    ...usageCalls(http),
    ...chartCalls(http),
    createCapsule: (body, signal) => json(capsuleSchema, '/v1/capsules', post(body), signal, CREATE_TIMEOUT_MS),
    listCapsules: (signal, statuses) =>
      http.list(capsuleListSchema, `/v1/capsules${query({ status: statuses })}`, signal),
    destroyCapsule: async (id, signal) => {
      await send(capsulePath(id), { method: 'DELETE' }, withTimeout(signal, DESTROY_TIMEOUT_MS));
    },
    readConsole: async (id, maxBytes, signal) => {
      const path = capsulePath(id, `/logs${query({ max_bytes: String(maxBytes) })}`);
      return (await send(path, {}, withTimeout(signal, QUERY_TIMEOUT_MS))).bytes();
    },
    startCommand: (id, command, signal) => {
      const request = post({ ...command, background: true });
      return json(execBackgroundResponseSchema, capsulePath(id, '/exec'), request, signal);
    },
    listProcesses: async (id, signal) =>
      (await json(processListSchema, capsulePath(id, '/processes'), {}, signal)).processes,
    killProcess: async (id, selector, signal) => {
      const path = capsulePath(id, `/processes/${encodeURIComponent(selector)}`);
      await send(path, { method: 'DELETE' }, withTimeout(signal, QUERY_TIMEOUT_MS));
    },
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
