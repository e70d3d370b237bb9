import { execFile } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import { promisify } from 'node:util';
import type { HypervisorIdentity } from '@wrenn/hypervisor/hypervisor';

const run = promisify(execFile);

/** Where and on what a measurement was taken. */
export interface Provenance {
  readonly machine: string;
  readonly commit: string;
  readonly takenAt: string;
}

export async function provenance(hypervisor: HypervisorIdentity): Promise<Provenance> {
  const cpu = cpus()[0]?.model.trim() ?? 'unknown CPU';
  const memoryGib = Math.round(totalmem() / 2 ** 30);
  const { stdout: head } = await run('git', ['rev-parse', '--short=12', 'HEAD']);
  const { stdout: changes } = await run('git', ['status', '--porcelain', '--untracked-files=no']);
  return {
    machine: `${cpus().length} × ${cpu}, ${memoryGib} GiB, Linux ${release()}, ${hypervisor.kind} ${hypervisor.version} ${hypervisor.accelerator}`,
    commit: head.trim() + (changes.trim() === '' ? '' : ' + changes'),
    takenAt: new Date().toISOString(),
  };
}
