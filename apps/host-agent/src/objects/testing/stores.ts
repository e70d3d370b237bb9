import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ObjectStore } from '../object-store.ts';
import { openObjectStore } from '../open-object-store.ts';
import { s3ServerProblem } from './install-s3-server.ts';
import { startS3Server } from './s3-server.ts';

export interface TestStore extends AsyncDisposable {
  readonly store: ObjectStore;
  /** The folder in which its objects are files. */
  readonly objects: string;
}

interface StoreKind {
  /** Says too why it cannot be tested here. */
  readonly title: string;
  readonly problem: string | undefined;
  readonly start: () => Promise<TestStore>;
}

const s3Problem = s3ServerProblem();

/** Each kind of store, for `describe.each`. */
export const STORE_KINDS: readonly StoreKind[] = [
  { title: 'a folder', problem: undefined, start: startFolder },
  { title: s3Problem ? `S3 (${s3Problem})` : 'S3', problem: s3Problem, start: startS3 },
];

async function startFolder(): Promise<TestStore> {
  const objects = await mkdtemp(join(tmpdir(), 'wrenn-objects-'));
  return {
    store: openObjectStore(`file://${objects}`),
    objects,
    [Symbol.asyncDispose]: () => rm(objects, { recursive: true, force: true }),
  };
}

async function startS3(): Promise<TestStore> {
  const server = await startS3Server();
  return {
    store: openObjectStore(server.url, server.env),
    objects: server.objects,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
