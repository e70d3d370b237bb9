import { type CapsuleBody, capsuleSchema, type UpdateCapsuleRequest } from '@wrenn/protocol/rest/capsule';
import {
  type ForkRequest,
  forkResponseSchema,
  type SnapshotBody,
  snapshotListSchema,
  snapshotSchema,
  verifyResponseSchema,
} from '@wrenn/protocol/rest/sleep';
import type { z } from 'zod';
import { type ApiHttp, capsulePath, post, QUERY_TIMEOUT_MS, query, withTimeout } from './http.ts';

export type VerifyBody = z.output<typeof verifyResponseSchema>;

/** The part of the API that is about one capsule's life: its state, its sleep, its copies. */
export interface SleepCalls {
  /** With what keeps it awake, and the timeline of its last start. */
  getCapsule(id: string, signal: AbortSignal): Promise<CapsuleBody>;
  /** What is left out stays as it is. */
  updateCapsule(id: string, changes: UpdateCapsuleRequest, signal: AbortSignal): Promise<CapsuleBody>;
  pauseCapsule(id: string, signal: AbortSignal): Promise<CapsuleBody>;
  /** `discard` boots the disk without the memory that the capsule slept with. */
  resumeCapsule(id: string, memory: 'keep' | 'discard', signal: AbortSignal): Promise<CapsuleBody>;
  /** All new capsules, or none. */
  forkCapsule(id: string, request: Partial<ForkRequest>, signal: AbortSignal): Promise<CapsuleBody[]>;
  hibernateCapsule(id: string, signal: AbortSignal): Promise<CapsuleBody>;
  /** Reads every file of a sleeping capsule again. */
  verifyCapsule(id: string, signal: AbortSignal): Promise<VerifyBody>;
  /** Makes a template of a capsule; without a name it gets a new one. */
  snapshotCapsule(id: string, name: string | undefined, signal: AbortSignal): Promise<SnapshotBody>;
  listSnapshots(signal: AbortSignal): Promise<SnapshotBody[]>;
  deleteSnapshot(name: string, signal: AbortSignal): Promise<void>;
}

/** Writing or reading all of a capsule's memory, on a busy disk. The platform goes on when this is over. */
const SLEEP_TIMEOUT_MS = 290_000;

export function sleepCalls({ json, send }: ApiHttp): SleepCalls {
  const act = (id: string, verb: string, signal: AbortSignal) =>
    json(capsuleSchema, capsulePath(id, `/${verb}`), { method: 'POST' }, signal, SLEEP_TIMEOUT_MS);
  return {
    getCapsule: (id, signal) => json(capsuleSchema, capsulePath(id, query({ trace: '1' })), {}, signal),
    updateCapsule: (id, changes, signal) =>
      json(capsuleSchema, capsulePath(id), { ...post(changes), method: 'PATCH' }, signal),
    pauseCapsule: (id, signal) => act(id, 'pause', signal),
    resumeCapsule: (id, memory, signal) =>
      act(id, `resume${query({ memory: memory === 'keep' ? undefined : memory })}`, signal),
    forkCapsule: async (id, request, signal) => {
      const path = capsulePath(id, '/fork');
      return (await json(forkResponseSchema, path, post(request), signal, SLEEP_TIMEOUT_MS)).capsules;
    },
    hibernateCapsule: (id, signal) => act(id, 'hibernate', signal),
    verifyCapsule: (id, signal) =>
      json(verifyResponseSchema, capsulePath(id, '/verify'), { method: 'POST' }, signal, SLEEP_TIMEOUT_MS),
    snapshotCapsule: (id, name, signal) =>
      json(
        snapshotSchema,
        capsulePath(id, '/snapshots'),
        post(name === undefined ? {} : { name }),
        signal,
        SLEEP_TIMEOUT_MS,
      ),
    listSnapshots: (signal) => json(snapshotListSchema, '/v1/snapshots', {}, signal),
    deleteSnapshot: async (name, signal) => {
      const path = `/v1/snapshots/${encodeURIComponent(name)}`;
      await send(path, { method: 'DELETE' }, withTimeout(signal, QUERY_TIMEOUT_MS));
    },
  };
}
