import { randomBytes } from 'node:crypto';
import type { GuestKernel } from '@wrenn/guest-image/catalog';
import type { Logger } from 'pino';
import { exerciseGuest } from '../guest/exercise.ts';
import type { StartSource } from '../snapshots/start-source.ts';
import { freeVm } from '../vms/free-vm.ts';
import { newRecord } from '../vms/new-record.ts';
import { bringUp, type StartContext } from '../vms/start-vm.ts';
import { Trace } from '../vms/trace.ts';
import type { VmEntry } from '../vms/vm.ts';
import { guestSettings } from '../vms/vm-settings.ts';
import type { WaitingVm } from './waiting-vm.ts';

const EXERCISE_STEP_MS = 20_000;

/** What a VM of the pool is made of. */
export interface PooledStart {
  /** What holds its snapshot. */
  readonly origin: object;
  readonly source: StartSource;
  readonly kernel: GuestKernel;
  readonly shape: { readonly vcpus: number; readonly memoryMb: number };
  readonly template: string;
  readonly snapshotId: string | undefined;
  readonly versions: Readonly<Record<string, string>>;
}

interface PoolContext extends StartContext {
  readonly log: Logger;
}

/** A VM restored from a snapshot, exercised and stopped, under a token that nobody else has. */
export class PooledVm implements WaitingVm {
  readonly entry: VmEntry;
  /** What its guest demands until it has a tenant. */
  readonly token = randomBytes(32).toString('hex');
  exited: Promise<string> = new Promise(() => undefined);
  readonly #context: PoolContext;
  readonly #start: PooledStart;

  constructor(context: PoolContext, start: PooledStart) {
    this.#context = context;
    this.#start = start;
    const { source, template, snapshotId, shape, versions } = start;
    const record = newRecord({
      id: '',
      template,
      snapshotId,
      shape,
      requestedDiskMb: 0,
      source,
      init: this.#init(),
      versions: { ...versions },
    });
    this.entry = { record: { ...record, phase: 'pooled' }, ended: new AbortController() };
  }

  get vmId(): string {
    return this.entry.record.vmId;
  }

  get origin(): object {
    return this.#start.origin;
  }

  async prepare(quiet: () => Promise<void>, signal: AbortSignal): Promise<void> {
    const { source, kernel } = this.#start;
    const { guestToken, defaults } = source;
    // Of the defaults only what the exercise needs: the environment is set with the tenant's.
    const settings = guestSettings(this.vmId, this.#init(), { ...defaults, envs: {} }, guestToken);
    await quiet();
    await bringUp(this.#context, this.entry, { source, kernel, settings }, new Trace(), signal);
    const { process, slot } = this.entry;
    if (!process || !slot) throw new Error(`${this.vmId} does not run`);
    const options = { hostIp: slot.hostIp, token: this.token, workdir: defaults.workdir, timeoutMs: EXERCISE_STEP_MS };
    const problems = await exerciseGuest(options, quiet, signal);
    if (problems.length > 0) {
      this.#context.log.warn({ vm: this.vmId, problems: problems.map(String) }, 'a VM of the pool is not wholly warm');
    }
    // Standing still it costs no CPU, and no time passes in it.
    await process.pause(signal);
    this.exited = process.exited.then(({ detail }) => detail);
  }

  async discard(): Promise<void> {
    await freeVm(this.#context.resources, this.entry);
    await this.#context.journal.end(this.vmId);
  }

  #init() {
    return { accessToken: this.token, envs: {}, user: '', workdir: '', hostname: 'wrenn' };
  }
}
