import { setTimeout as delay } from 'node:timers/promises';
import type { DiskCompaction, DiskCompactionResult } from '../hypervisor.ts';
import { DISK_NODE, layerNodeName } from './machine.ts';
import type { QmpClient } from './qmp-client.ts';
import { QmpCommandError } from './qmp-protocol.ts';

const JOB = 'compaction';
const COMMAND_TIMEOUT_MS = 10_000;
/** A job gives up between two pieces of half a megabyte; more than that is a disk that hangs. */
const CANCEL_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 5_000;

/**
 * Copies what the layers above the kept ones hold into the VM's overlay, and takes them out of its disk.
 *
 * @returns `interrupted` where `cancelDiskCompaction` ended it. What was copied so far stays in the overlay.
 * @throws WrennError host_disk_full; Error with QEMU's words where it fails otherwise; the signal's reason. The disk is
 * as good as before in every case.
 */
export async function compactQemuDisk(
  client: QmpClient,
  { keepLayers, maxBytesPerSecond = 0 }: DiskCompaction,
  signal: AbortSignal,
): Promise<DiskCompactionResult> {
  const kept = layerNodeName(keepLayers - 1);
  const options = { signal, timeoutMs: COMMAND_TIMEOUT_MS };
  const names = await nodeNames(client, signal);
  if (!names.has(kept)) throw new Error(`The VM's disk has no layer "${kept}", so nothing can be merged down to it`);
  if (!names.has(layerNodeName(keepLayers))) return 'merged';
  // One that an earlier agent began, whose end nobody waits for.
  await cancelDiskCompaction(client, signal);

  const ended = Promise.withResolvers<DiskCompactionResult>();
  ended.promise.catch(() => {});
  const unsubscribe = client.subscribe((event) => {
    if (event.event === 'BLOCK_JOB_CANCELLED' && event.data.device === JOB) ended.resolve('interrupted');
    if (event.event === 'BLOCK_JOB_COMPLETED' && event.data.device === JOB) {
      const { error } = event.data;
      if (error === undefined) ended.resolve('merged');
      else ended.reject(new Error(`The layers of the disk could not be merged: ${error}`));
    }
  });
  const onAbort = () => ended.reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    await client.execute(
      'block-stream',
      {
        'job-id': JOB,
        device: DISK_NODE,
        'base-node': kept,
        speed: maxBytesPerSecond,
        // Trying again is for whoever asked; the guest goes on in any case.
        'on-error': 'report',
      },
      options,
    );
    const result = await Promise.race([ended.promise, client.closed.then((reason) => Promise.reject(reason))]);
    // QEMU tells of the end a moment before it closes the files.
    if (result === 'merged') await untilGone(client, layerNodeName(keepLayers), signal);
    return result;
  } catch (error) {
    // The job must not go on behind the back of a caller who was told that it ended.
    await cancelDiskCompaction(client, AbortSignal.timeout(CANCEL_TIMEOUT_MS)).catch((cause: unknown) => {
      throw new AggregateError([error, cause], 'The merging of the disk failed, and its job may go on');
    });
    throw error;
  } finally {
    unsubscribe();
    signal.removeEventListener('abort', onAbort);
  }
}

async function nodeNames(client: QmpClient, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const options = { signal, timeoutMs: COMMAND_TIMEOUT_MS };
  const nodes = await client.execute('query-named-block-nodes', { flat: true }, options);
  return new Set(nodes.map((node) => node['node-name']));
}

async function untilGone(client: QmpClient, name: string, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + CLOSE_TIMEOUT_MS;
  for (let pauseMs = 1; (await nodeNames(client, signal)).has(name); pauseMs = Math.min(pauseMs * 2, 50)) {
    if (performance.now() > deadline) throw new Error(`QEMU merged the disk but does not close its layer "${name}"`);
    await delay(pauseMs, undefined, { signal });
  }
}

/** Ends a compaction, whoever began it, and waits until it is gone. Does nothing where none runs. */
export async function cancelDiskCompaction(client: QmpClient, signal: AbortSignal): Promise<void> {
  const options = { signal, timeoutMs: COMMAND_TIMEOUT_MS };
  const deadline = performance.now() + CANCEL_TIMEOUT_MS;
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 50)) {
    const jobs = await client.execute('query-block-jobs', undefined, options);
    if (!jobs.some((job) => job.device === JOB)) return;
    await client.execute('block-job-cancel', { device: JOB, force: true }, options).catch((error: unknown) => {
      // It ended between the question and the command.
      if (!(error instanceof QmpCommandError && error.errorClass === 'DeviceNotActive')) throw error;
    });
    if (performance.now() > deadline) throw new Error('QEMU does not end the merging of the disk');
    await delay(pauseMs, undefined, { signal });
  }
}
