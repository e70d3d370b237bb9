import { statfs } from 'node:fs/promises';
import { loadavg } from 'node:os';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { listImages, newestKernel } from '@wrenn/guest-image/catalog';
import type { HypervisorIdentity } from '@wrenn/hypervisor/hypervisor';
import { VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { type Heartbeat, HOST_VM_STATES } from '@wrenn/protocol/rest/hosts';
import { vmMessage } from '../server/vm-message.ts';
import { hostCapacity } from '../vms/check-spec.ts';
import type { VmView } from '../vms/vm-view.ts';

const MIB = 1024 * 1024;
const GIB_MB = 1024;

export interface FactsOf {
  readonly dir: WrennDir;
  readonly identity: HypervisorIdentity;
  readonly agentVersion: string;
}

/** What a host says of itself when it registers, measured. */
export async function registrationFacts({ dir, identity, agentVersion }: FactsOf) {
  const [disk, kernel] = await Promise.all([diskOf(dir), newestKernel(dir)]);
  const { cpus, memoryMb } = hostCapacity();
  return {
    arch: identity.arch === 'aarch64' ? 'arm64' : 'amd64',
    cpu_cores: cpus,
    memory_mb: memoryMb,
    disk_gb: Math.floor(disk.sizeMb / GIB_MB),
    disk_free_mb: disk.freeMb,
    hypervisor: identity.kind,
    hypervisor_version: identity.version,
    accelerator: identity.accelerator,
    ...(kernel ? { kernel_version: kernel.version } : {}),
    agent_version: agentVersion,
  };
}

/** What a host says of itself now, and all that it has. */
export type HeartbeatFacts = Omit<Heartbeat, 'sent_at' | 'boot_id' | 'sequence' | 'samples'>;

export async function heartbeatFacts(of: FactsOf, vms: readonly VmView[]): Promise<HeartbeatFacts> {
  const [disk, images] = await Promise.all([diskOf(of.dir), listImages(of.dir)]);
  const { cpus, memoryMb, availableMemoryMb } = hostCapacity();
  return {
    agent_version: of.agentVersion,
    cpu_cores: cpus,
    memory_mb: memoryMb,
    memory_free_mb: availableMemoryMb,
    disk_mb: disk.sizeMb,
    disk_free_mb: disk.freeMb,
    load_1m: loadavg()[0] ?? 0,
    templates: images.map(({ name }) => name),
    vms: vms.map(inventoryEntry),
  };
}

function inventoryEntry(view: VmView): Heartbeat['vms'][number] {
  const { id, state, generation } = vmMessage(view);
  const name = VmState[state].toLowerCase();
  const known = HOST_VM_STATES.find((each) => each === name);
  if (!known) throw new Error(`${id} is ${name}, which heartbeats have no word for`);
  return { id, state: known, generation };
}

async function diskOf({ root }: WrennDir): Promise<{ sizeMb: number; freeMb: number }> {
  const { blocks, bavail, bsize } = await statfs(root);
  return { sizeMb: Math.floor((blocks * bsize) / MIB), freeMb: Math.floor((bavail * bsize) / MIB) };
}
