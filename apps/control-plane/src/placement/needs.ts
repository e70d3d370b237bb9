/** Where a snapshot is. */
export interface SnapshotPlace {
  /** Where it was made. */
  readonly hostId: string;
  /** Other hosts that have it. */
  readonly copies: readonly string[];
  /** Null: only hosts have it. */
  readonly objectKey: string | null;
}

/** What a capsule needs of its host. */
export interface Needs {
  readonly teamId: string;
  readonly vcpus: number;
  readonly memoryMb: number;
  /** 0: as the template has it. */
  readonly diskMb: number;
  /** Undefined: the capsule brings its own disk. */
  readonly template?: string | undefined;
  /** Tags that the host must have, all of them. */
  readonly hostTags?: readonly string[] | undefined;
  /** The snapshot that it is made of. */
  readonly snapshot?: SnapshotPlace | undefined;
  /** The host where its memory was saved: only a machine like that one, with the same object store, can go on with it. */
  readonly likeHostId?: string | undefined;
}
