import { readdir, readFile, stat } from 'node:fs/promises';
import { type ProcessKey, processKey } from '@wrenn/hypervisor/vm-process';

/** Processes that run in the network namespace mounted at `path`; none when it does not exist. */
export async function processesInNamespace(path: string): Promise<ProcessKey[]> {
  const namespace = await stat(path).catch(() => undefined);
  if (!namespace) return [];
  return findProcesses(async (pid) => (await stat(`/proc/${pid}/ns/net`)).ino === namespace.ino);
}

/** Processes, other than this one, in whose command line `text` occurs. */
export async function processesNaming(text: string): Promise<ProcessKey[]> {
  return findProcesses(
    async (pid) => pid !== process.pid && (await readFile(`/proc/${pid}/cmdline`, 'utf8')).includes(text),
  );
}

/** Processes, zombies excluded, for which `matches` holds. One that ends meanwhile is left out. */
async function findProcesses(matches: (pid: number) => Promise<boolean>): Promise<ProcessKey[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const key = processKey(pid);
      return key && (await matches(pid).catch(() => false)) ? key : undefined;
    }),
  );
  return found.filter((key) => key !== undefined);
}
