import {
  type createHostRequestSchema,
  deletePreviewSchema,
  type HostBody,
  hostListSchema,
  hostSchema,
  hostWithTokenSchema,
} from '@wrenn/protocol/rest/hosts';
import type { z } from 'zod';
import { type ApiHttp, post, QUERY_TIMEOUT_MS, query, withTimeout } from './http.ts';

export type HostWithToken = z.output<typeof hostWithTokenSchema>;
export type DeletePreview = z.output<typeof deletePreviewSchema>;

/** The part of the API that is about hosts: the machines that capsules run on. */
export interface HostCalls {
  listHosts(signal: AbortSignal): Promise<HostBody[]>;
  getHost(id: string, signal: AbortSignal): Promise<HostBody>;
  createHost(request: z.input<typeof createHostRequestSchema>, signal: AbortSignal): Promise<HostWithToken>;
  /** Another registration token, for an hour. */
  newHostToken(id: string, signal: AbortSignal): Promise<HostWithToken>;
  setCordon(id: string, cordoned: boolean, signal: AbortSignal): Promise<void>;
  drainHost(id: string, mode: 'pause' | 'hibernate', signal: AbortSignal): Promise<void>;
  undrainHost(id: string, signal: AbortSignal): Promise<void>;
  addHostTag(id: string, tag: string, signal: AbortSignal): Promise<void>;
  removeHostTag(id: string, tag: string, signal: AbortSignal): Promise<void>;
  previewHostDeletion(id: string, signal: AbortSignal): Promise<DeletePreview>;
  deleteHost(id: string, force: boolean, signal: AbortSignal): Promise<void>;
}

/** Every running capsule of it may have to be told. */
const DELETE_TIMEOUT_MS = 290_000;

export function hostCalls({ json, list, send }: ApiHttp): HostCalls {
  const path = (id: string, ...rest: string[]) => ['/v1/hosts', ...[id, ...rest].map(encodeURIComponent)].join('/');
  const act = async (to: string, init: RequestInit, signal: AbortSignal, timeoutMs = QUERY_TIMEOUT_MS) => {
    await send(to, init, withTimeout(signal, timeoutMs));
  };
  return {
    listHosts: (signal) => list(hostListSchema, '/v1/hosts', signal),
    getHost: (id, signal) => json(hostSchema, path(id), {}, signal),
    createHost: (request, signal) => json(hostWithTokenSchema, '/v1/hosts', post(request), signal),
    newHostToken: (id, signal) => json(hostWithTokenSchema, path(id, 'token'), { method: 'POST' }, signal),
    setCordon: (id, cordoned, signal) => act(path(id, cordoned ? 'cordon' : 'uncordon'), { method: 'POST' }, signal),
    drainHost: (id, mode, signal) => act(path(id, 'drain'), post({ mode }), signal),
    undrainHost: (id, signal) => act(path(id, 'undrain'), { method: 'POST' }, signal),
    addHostTag: (id, tag, signal) => act(path(id, 'tags'), post({ tag }), signal),
    removeHostTag: (id, tag, signal) => act(path(id, 'tags', tag), { method: 'DELETE' }, signal),
    previewHostDeletion: (id, signal) => json(deletePreviewSchema, path(id, 'delete-preview'), {}, signal),
    deleteHost: (id, force, signal) =>
      act(
        `${path(id)}${query({ force: force ? 'true' : undefined })}`,
        { method: 'DELETE' },
        signal,
        DELETE_TIMEOUT_MS,
      ),
  };
}
