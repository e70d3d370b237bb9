import { WrennError } from '@wrenn/protocol/errors';
import { guestTransport, runGuestProgram } from './guest-programs.ts';

/**
 * Has a running guest grow its root file system to the size of its disk.
 *
 * @throws WrennError vm_start_failed when the template has no program for it.
 */
export async function growFileSystem(hostIp: string, signal: AbortSignal): Promise<void> {
  const program = { cmd: '/usr/sbin/resize2fs', args: ['/dev/vda'], user: 'root' };
  try {
    await runGuestProgram(guestTransport(hostIp), program, signal);
  } catch (error) {
    signal.throwIfAborted();
    const problem = 'its template cannot grow its file system to disk_mb; it needs resize2fs (package e2fsprogs).';
    throw new WrennError('vm_start_failed', { problem }, { cause: error });
  }
}
