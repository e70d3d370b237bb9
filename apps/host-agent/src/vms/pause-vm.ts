import { isRunning } from '@wrenn/hypervisor/vm-process';
import { WrennError } from '@wrenn/protocol/errors';
import { asHostDiskFull } from '../disk/disk-full.ts';
import { removeFolder, sealFolder } from '../snapshots/sealed-folder.ts';
import { manifestOf, sharedSums, takeSnapshot } from '../snapshots/take-snapshot.ts';
import { stopCompaction } from './compact-disk.ts';
import { endedMeanwhile } from './ended-meanwhile.ts';
import { goOn, liveVm, standStill } from './stand-still.ts';
import type { Trace } from './trace.ts';
import type { VmEntry } from './vm.ts';
import type { VmContext } from './vm-context.ts';

/**
 * Puts a running VM to sleep as the generation of that number. Until that is complete nothing is lost: whatever fails,
 * the VM runs on. Afterwards nothing can fail any more that the next start of the agent would not finish.
 *
 * @throws WrennError host_disk_full, capsule_ended, or the signal's reason; the VM runs then, unless it has ended
 */
export async function pauseVm(
  context: VmContext,
  entry: VmEntry,
  generation: number,
  trace: Trace,
  signal: AbortSignal,
): Promise<void> {
  const { journal, snapshots, registry, log } = context;
  const { id } = entry.record;
  await stopCompaction(entry);
  entry.record = { ...entry.record, phase: 'pausing', pausing: generation };
  await journal.write(entry.record);
  registry.publish(id);
  // The guest must see its connections end, or it would wait for their other ends when it wakes.
  entry.ended.abort();
  const { vm } = liveVm(entry);
  try {
    await saveGeneration(context, entry, generation, trace, signal);
  } catch (error) {
    const problem = signal.aborted ? signal.reason : await endedMeanwhile(id, vm, error);
    await backToRunning(context, entry);
    throw pauseError(entry, problem);
  }
  await snapshots.add(id, generation);
  await trace.step('end', () => registry.remove(entry));
  await snapshots.removeOlder(id).catch((error: unknown) => {
    log.warn({ vm: id, err: error }, 'an older generation cannot be removed yet');
  });
}

async function saveGeneration(
  { snapshots, registry, log }: VmContext,
  entry: VmEntry,
  generation: number,
  trace: Trace,
  signal: AbortSignal,
): Promise<void> {
  const { id } = entry.record;
  const { vm } = liveVm(entry);
  const partial = await snapshots.makePartial(id, String(generation));
  const final = snapshots.folder(id, generation);
  try {
    await standStill(entry, true, trace, log, signal);
    const vmDir = registry.folder(entry).dir;
    await takeSnapshot(vm, entry.record, { dir: partial, vmDir, disk: 'freeze' }, trace, signal);
    if (!isRunning(vm.process)) throw new Error('the VM ended while it was put to sleep');
    const manifest = manifestOf(entry.record, vm, { kind: 'generation', id, generation });
    await trace.step('seal', () => sealFolder({ partial, final, manifest, known: sharedSums(entry.record) }, signal));
  } catch (error) {
    // It may have its name already, and not be on stable storage.
    await removeFolder(final)
      .then(() => snapshots.removePartial(id, partial))
      .catch((rest: unknown) => {
        log.warn({ vm: id, err: rest }, 'a generation that was not completed cannot be removed yet');
      });
    throw error;
  }
}

/** The VM goes on where it was, or is found to have ended. */
async function backToRunning({ journal, registry, log }: VmContext, entry: VmEntry): Promise<void> {
  const { pausing: _, ...record } = entry.record;
  entry.record = { ...record, phase: 'running' };
  entry.ended = new AbortController();
  try {
    await goOn(entry, log);
    await journal.write(entry.record);
    registry.publish(entry.record.id);
  } catch (error) {
    const { id, process } = entry.record;
    log.error({ vm: id, err: error }, 'a VM that could not be put to sleep does not go on');
    if (process && isRunning(process)) {
      // It runs, and only the journal could not be told: what that says is repaired at the agent's next start.
      registry.publish(id);
      return;
    }
    await registry.fail(entry, 'its process ended while it was put to sleep.');
  }
}

function pauseError({ record: { id, phase } }: VmEntry, error: unknown): unknown {
  if (phase === 'failed') {
    const problem = 'its process ended while it was put to sleep.';
    return new WrennError('capsule_ended', { id, problem }, { cause: error });
  }
  return asHostDiskFull(error) ?? error;
}
