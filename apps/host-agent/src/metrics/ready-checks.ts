import { statfs } from 'node:fs/promises';
import type { Check } from './watch-server.ts';

const MIB = 1024 * 1024;
/** With less no VM can begin; see disk/overlay.ts. */
const MIN_FREE_MB = 64;

export interface ReadyOptions {
  /** WRENN_DIR. */
  readonly root: string;
  readonly vms: { readonly state: 'recovering' | 'accepting' | 'stopping' };
}

/** Whether this agent carries out verbs, and what is missing where it does not. */
export async function readyChecks({ root, vms }: ReadyOptions): Promise<Record<'verbs' | 'disk', Check>> {
  const { bavail, bsize } = await statfs(root);
  const freeMb = Math.floor((bavail * bsize) / MIB);
  const details = {
    recovering: 'taking over what an earlier agent left',
    accepting: 'carried out',
    stopping: 'shutting down',
  };
  return {
    verbs: { ok: vms.state === 'accepting', detail: details[vms.state] },
    disk: { ok: freeMb >= MIN_FREE_MB, detail: `${freeMb} MiB are free in ${root}` },
  };
}
