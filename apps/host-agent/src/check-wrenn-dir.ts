import { join } from 'node:path';
import { EnvironmentError } from '@wrenn/config/environment';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { MAX_SOCKET_PATH_BYTES, vmFiles } from '@wrenn/hypervisor/qemu/launch';
import { vmFolder } from './vms/vm-folder.ts';

/**
 * Refuses a WRENN_DIR in which no hypervisor could have its control socket.
 *
 * @throws EnvironmentError
 */
export function checkPathLength(dir: WrennDir): void {
  // The longest there is: of the VM that a template's snapshot is taken from.
  const maker = join(dir.templateSnapshots, `${'k'.repeat(32)}.partial`);
  const excess = Buffer.byteLength(vmFiles(vmFolder(maker).runDir).controlSocket) - MAX_SOCKET_PATH_BYTES;
  if (excess <= 0) return;
  const most = Buffer.byteLength(dir.root) - excess;
  throw new EnvironmentError(
    `WRENN_DIR is ${dir.root}, which is ${excess} bytes too long for the sockets in it: use a path of at most ${most} bytes.`,
  );
}
