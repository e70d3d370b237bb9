import { join } from 'node:path';
import { EnvironmentError } from '@wrenn/config/environment';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { vmFolder } from './vms/vm-folder.ts';

/** Linux keeps a socket's path in 108 bytes, with a zero at the end. */
const MAX_SOCKET_PATH_BYTES = 107;

/**
 * Refuses a WRENN_DIR in which no hypervisor could have its control socket.
 *
 * @throws EnvironmentError
 */
export function checkPathLength(dir: WrennDir): void {
  // The longest there is: of the VM that a template's snapshot is taken from.
  const maker = join(dir.templateSnapshots, `${'k'.repeat(32)}.partial`);
  const excess = Buffer.byteLength(join(vmFolder(maker).runDir, 'qmp.sock')) - MAX_SOCKET_PATH_BYTES;
  if (excess <= 0) return;
  const most = Buffer.byteLength(dir.root) - excess;
  throw new EnvironmentError(
    `WRENN_DIR is ${dir.root}, which is ${excess} bytes too long for the sockets in it: use a path of at most ${most} bytes.`,
  );
}
