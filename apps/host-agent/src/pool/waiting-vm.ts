/** A VM without a tenant, made ahead of need. Whoever begins it frees it, or hands it to a tenant. */
export interface WaitingVm {
  readonly vmId: string;
  /**
   * Makes it, up to the moment at which it can wait. Called once. What it has made when it fails, `discard` frees.
   *
   * @param quiet Resolves when nothing more urgent needs the host's CPUs; awaited before each larger piece of work.
   */
  prepare(quiet: () => Promise<void>, signal: AbortSignal): Promise<void>;
  /** Settles when a prepared VM has ended by itself, with a line that says how. Never rejects. */
  readonly exited: Promise<string>;
  /** Ends it and frees all that it holds. Can be repeated when it fails half-way. */
  discard(): Promise<void>;
}

/** VMs that are all alike while they have no tenant. */
export interface PoolKind<Vm extends WaitingVm> {
  /** Differs whenever anything differs that a tenant could notice. */
  readonly key: string;
  /** What one of them may take of the host's memory. */
  readonly memoryMb: number;
  /** A VM of which nothing is made yet. */
  begin(): Vm;
  /** Whether a create could still ask for this kind: false once its template has changed or is gone. */
  isCurrent(): Promise<boolean>;
}
