import type { GuestKernel } from '@wrenn/guest-image/catalog';
import type { StartSource } from '../snapshots/start-source.ts';
import { compactInBackground } from './compact-disk.ts';
import { startError, startVm } from './start-vm.ts';
import type { Trace } from './trace.ts';
import type { GuestInit, VmEntry } from './vm.ts';
import type { VmContext } from './vm-context.ts';
import { readTail } from './vm-folder.ts';
import { guestSettings } from './vm-settings.ts';

/** A start failed and nothing of it is left. `failure` is what the caller is told. */
export class StartFailedError extends Error {
  override readonly name = 'StartFailedError';
  readonly failure: unknown;

  constructor(failure: unknown, options: ErrorOptions) {
    super('the VM did not start', options);
    this.failure = failure;
  }
}

/**
 * Makes the VM of a new record run, and known.
 *
 * @throws StartFailedError; nothing of the VM is left then, or it is known and can be removed later
 */
export async function runVm(
  context: VmContext,
  entry: VmEntry,
  { source, kernel, init }: { source: StartSource; kernel: GuestKernel; init: GuestInit },
  trace: Trace,
  signal: AbortSignal,
): Promise<void> {
  const { registry, log } = context;
  const { id } = entry.record;
  registry.put(entry);
  const settings = guestSettings(id, init, source.defaults, source.guestToken);
  try {
    await startVm(context, entry, { source, kernel, settings }, trace, signal);
  } catch (error) {
    const failure = startError(error, signal);
    const console = await readTail(registry.folder(entry).console, 2000).catch(() => Buffer.alloc(0));
    log.error({ vm: id, err: error, console: console.toString() }, 'VM could not be started');
    await registry.remove(entry).catch((rest: unknown) => {
      log.error({ vm: id, err: rest }, 'what is left of a VM that did not start cannot be freed yet');
    });
    throw new StartFailedError(failure, { cause: error });
  }
  registry.watchExit(entry);
  registry.publish(id);
  compactInBackground(context, entry);
  log.info({ vm: id, trace: trace.steps }, 'VM started');
}
