import { WrennError } from '@wrenn/protocol/errors';
import type { GuestInit as GuestInitMessage } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { isId } from '@wrenn/protocol/ids';
import type { GuestInit } from '../vms/vm.ts';

/** An id becomes part of paths: nothing else than an id may come through. */
export function checkedId(id: string): string {
  if (!isId('cl', id)) throw new WrennError('invalid_request', { problem: 'id must be the id of a capsule, "cl-…".' });
  return id;
}

/** As `checkedId`. */
export function checkedSnapshotId(id: string): string {
  if (isId('snap', id)) return id;
  throw new WrennError('invalid_request', { problem: 'snapshot_id must be the id of a snapshot, "snap-…".' });
}

/** Generations are counted from 1. */
export function checkedGeneration(generation: number): number {
  if (generation >= 1) return generation;
  throw new WrennError('invalid_request', { problem: 'generation must be at least 1.' });
}

/** Prefix of the objects of a hibernated VM: names with slashes between them, none of them hidden. */
export function checkedObjectKey(key: string): string {
  if (/^[a-z0-9-]+(\/[a-z0-9-]+)*$/i.test(key) && key.length <= 256) return key;
  throw new WrennError('invalid_request', {
    problem: 'object_key must be names of letters, digits and "-" with "/" between.',
  });
}

export function guestInit(init: GuestInitMessage | undefined): GuestInit {
  return {
    accessToken: init?.accessToken ?? '',
    envs: { ...init?.envs },
    user: init?.defaultUser ?? '',
    workdir: init?.defaultWorkdir ?? '',
    hostname: init?.hostname ?? '',
  };
}
