import type { RunningVm } from '@wrenn/hypervisor/hypervisor';
import { WrennError } from '@wrenn/protocol/errors';

/**
 * Does something with a guest that may end meanwhile.
 *
 * @throws WrennError vm_start_failed as soon as the VM has ended.
 */
export async function whileRunning<T>(
  vm: RunningVm,
  signal: AbortSignal,
  action: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const ended = new AbortController();
  const done = new AbortController();
  const exit = vm.exited.then(({ detail }) => {
    if (done.signal.aborted) return;
    const problem = 'it ended while it was starting.';
    ended.abort(new WrennError('vm_start_failed', { problem }, { cause: new Error(detail) }));
  });
  try {
    return await action(AbortSignal.any([signal, ended.signal]));
  } catch (error) {
    // A connection that breaks and a process that ends are seen in any order.
    if (ended.signal.aborted) throw ended.signal.reason;
    throw error;
  } finally {
    done.abort();
    void exit;
  }
}
