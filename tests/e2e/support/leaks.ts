import { readdir, readFile, readlink, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { pooledRecords } from './warm-pool.ts';

const CLAIMS = '/run/wrenn/slots';

/** What a WRENN_DIR holds of the machine, one line a thing: processes, namespaces, interfaces, mounts, cgroups, files. */
export type MachineState = ReadonlySet<string>;

/**
 * Everything on the machine that belongs to this WRENN_DIR, or to none that can be told. What other agents hold is
 * left out, because it changes while a test runs.
 */
export async function machineState(root: string): Promise<MachineState> {
  const dir = await realpath(root).catch(() => root);
  const parts = await Promise.all([processes(dir), network(dir), mounts(dir), cgroups(), files(dir)]);
  return new Set(parts.flat());
}

export interface LeakOptions {
  /** Network slots that may be there: an agent that runs keeps some ready. */
  readonly readySlots?: number;
  /** Whether VMs without a tenant may be there: an agent that runs with a warm pool keeps some. */
  readonly warmPool?: boolean;
}

/** What is just going is waited for. */
const SETTLE_TIMEOUT_MS = 60_000;

/** What is there now and was not before. */
export async function leaksSince(before: MachineState, root: string, options: LeakOptions = {}): Promise<string[]> {
  for (const deadline = Date.now() + SETTLE_TIMEOUT_MS; ; await delay(100)) {
    const pooled = options.warmPool ? await pooledRecords(root) : [];
    const pooledSlots = new Set(pooled.map(({ slot }) => String(slot)));
    const ofPool = (thing: string) => pooled.some(({ vmId }) => thing.includes(vmId));
    const state = [...(await machineState(root))];
    const slots = state.filter((thing) => thing.startsWith('slot claim')).map((thing) => thing.split(' ')[2] ?? '');
    const ready = slots.filter((index) => !pooledSlots.has(index));
    const spare = [...pooledSlots, ...(ready.length <= (options.readySlots ?? 0) ? ready : [])];
    const allowed = new Set(
      spare.flatMap((i) => [`slot claim ${i}`, `network wrenn-ns-${i}`, `network wrenn-veth-${i}`]),
    );
    const leaks = state.filter((thing) => !before.has(thing) && !allowed.has(thing) && !ofPool(thing));
    if (leaks.length === 0 || Date.now() > deadline) return leaks.sort();
  }
}

/** Processes that name the folder in their arguments, and hypervisors in it by whatever way. */
async function processes(dir: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== String(process.pid));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
      const open = command.includes(`${dir}/`) || cwd.startsWith(`${dir}/`);
      return open ? [`process ${pid} ${command.split('\0').slice(0, 3).join(' ')}`] : [];
    }),
  );
  return found.flat();
}

async function network(dir: string): Promise<string[]> {
  // Claims are made before and given back after what they are for: in this order, nothing foreign looks like nobody's.
  const namespaces = await readdir('/run/netns').catch(() => []);
  const interfaces = await readdir('/sys/class/net');
  const claims = await readdir(CLAIMS).catch(() => []);
  const foreign = new Set<string>();
  const lines: string[] = [];
  for (const index of claims.filter((name) => /^\d+$/.test(name))) {
    const owner = await readFile(join(CLAIMS, index), 'utf8').catch(() => '');
    if (owner.includes(`"${dir}"`)) lines.push(`slot claim ${index}`);
    else foreign.add(index);
  }
  for (const name of [...namespaces, ...interfaces]) {
    const index = /^wrenn-(?:ns|veth)-(\d+)$/.exec(name)?.[1];
    if (index && !foreign.has(index)) lines.push(`network ${name}`);
  }
  return lines;
}

async function mounts(dir: string): Promise<string[]> {
  const text = await readFile('/proc/self/mountinfo', 'utf8');
  return text.split('\n').flatMap((line) => (line.includes(`${dir}/`) ? [`mount ${line.split(' ')[4]}`] : []));
}

/** Groups of VMs, two levels below `wrenn`; a group that its VM's process has left is a leak wherever it is. */
async function cgroups(): Promise<string[]> {
  const roots = ['/sys/fs/cgroup', ...(await folders('/sys/fs/cgroup')).map((name) => `/sys/fs/cgroup/${name}`)];
  const lines: string[] = [];
  for (const root of roots) {
    for (const tag of await folders(`${root}/wrenn`)) {
      for (const id of await folders(`${root}/wrenn/${tag}`)) {
        const members = await readFile(`${root}/wrenn/${tag}/${id}/cgroup.procs`, 'utf8').catch(() => '-');
        if (members === '') lines.push(`cgroup ${root}/wrenn/${tag}/${id}`);
      }
    }
  }
  return lines;
}

async function folders(path: string): Promise<string[]> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

async function files(dir: string): Promise<string[]> {
  const { capsules, snapshots, templateSnapshots } = wrennDir(dir);
  const lists = await Promise.all(
    [capsules, snapshots, templateSnapshots].map(async (folder) => {
      const entries = await readdir(folder, { recursive: true }).catch(() => []);
      return entries.map((entry) => `file ${join(folder, entry)}`);
    }),
  );
  return lists.flat();
}
