import { chmod, mkdir, realpath } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import type { ListenAddress } from '@wrenn/config/environment';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { listImages, newestKernel } from '@wrenn/guest-image/catalog';
import type { Hypervisor } from '@wrenn/hypervisor/hypervisor';
import { ensureLocalPki } from '@wrenn/pki/local-pki';
import type { Logger } from 'pino';
import { lockWrennDir } from './agent-lock.ts';
import { checkPathLength } from './check-wrenn-dir.ts';
import { VmCgroups } from './confinement/vm-cgroups.ts';
import { Journal } from './journal/journal.ts';
import { claimOwner } from './network/claims.ts';
import { applyHostRules } from './network/host-rules.ts';
import { SlotPool } from './network/slot-pool.ts';
import { openObjectStore } from './objects/open-object-store.ts';
import { poolLimits, readySlots } from './pool/pool-limits.ts';
import type { PooledVm } from './pool/pooled-vm.ts';
import { StartActivity } from './pool/start-activity.ts';
import { WarmPool } from './pool/warm-pool.ts';
import { AgentServer } from './server/agent-server.ts';
import { hostService } from './server/host-service.ts';
import { SnapshotStore } from './snapshots/snapshot-store.ts';
import type { TemplateInputs } from './templates/template-key.ts';
import { TemplateStore } from './templates/template-store.ts';
import { AGENT_VERSION } from './version.ts';
import { hostCapacity } from './vms/check-spec.ts';
import { VmManager } from './vms/vm-manager.ts';

const RECOVERY_TIMEOUT_MS = 300_000;
const RENEWAL_CHECK_MS = 86_400_000;

export interface AgentOptions {
  readonly wrennDir: string;
  readonly listen: ListenAddress;
  /** From `chooseHypervisor`. */
  readonly hypervisor: Hypervisor;
  readonly log: Logger;
  /** Where hibernated VMs go, see openObjectStore; a folder in WRENN_DIR unless told. */
  readonly objectStoreUrl?: string;
  /** Network slots made ahead of need; as many as the warm pool expects to be without unless told. */
  readonly slotPoolSize?: number;
  /** What VMs that wait in the warm pool may take of the host's memory together; 0 keeps none; half of it unless told. */
  readonly warmPoolMaxMb?: number | undefined;
  /** How long a stop waits for verbs that have begun; 30 s unless told. */
  readonly stopGraceMs?: number;
}

/** A running agent. Disposing it stops the agent and leaves every VM running. */
export interface Agent extends AsyncDisposable {
  /** The port that it listens on. */
  readonly port: number;
}

/**
 * Starts a host agent in this process: brings the machine in line with the journal, adopts the VMs that run, and
 * serves wrenn.host.v1.
 *
 * @throws EnvironmentError when the path of WRENN_DIR is too long; Error when another agent uses it, or the machine
 * lacks what VMs need.
 */
export async function startAgent(options: AgentOptions): Promise<Agent> {
  const { hypervisor, log } = options;
  await using stack = new AsyncDisposableStack();
  // Hypervisors that have dropped to their own user pass through these folders to what is theirs.
  await mkdir(options.wrennDir, { recursive: true, mode: 0o711 });
  const root = await realpath(options.wrennDir);
  const dir = wrennDir(root);
  checkPathLength(dir);
  stack.use(await lockWrennDir(root));
  for (const path of [dir.capsules, dir.templateSnapshots]) {
    await mkdir(path, { recursive: true, mode: 0o711 });
    await chmod(path, 0o711);
  }
  const signal = AbortSignal.timeout(RECOVERY_TIMEOUT_MS);
  await applyHostRules(signal);
  const owner = claimOwner(root);
  const cgroups = stack.use(
    await VmCgroups.open({ wrennDir: root, accelerator: hypervisor.identity.accelerator, log }),
  );
  const activity = new StartActivity();
  const quiet = (closed: AbortSignal) => activity.quiet(closed);
  const limits = poolLimits(hostCapacity());
  const pool = new WarmPool<PooledVm>({
    maxMb: options.warmPoolMaxMb ?? limits.maxMb,
    reserveMb: limits.reserveMb,
    availableMb: () => hostCapacity().availableMemoryMb,
    activity,
    log,
  });
  const readyCount = () => options.slotPoolSize ?? readySlots(pool.stats());
  const slots = stack.use(new SlotPool({ owner, size: readyCount, quiet, log }));
  const resources = { hypervisor, slots, cgroups };
  const templates = stack.use(new TemplateStore({ dir, resources, log }));
  const snapshots = new SnapshotStore({ dir, identity: hypervisor.identity, log });
  await snapshots.open();
  const objects = openObjectStore(options.objectStoreUrl ?? pathToFileURL(dir.objects).href);
  const journal = new Journal(dir);
  const agentVersion = AGENT_VERSION;
  // Before what its VMs hold.
  stack.use(pool);
  const vms = new VmManager({
    ...{ dir, journal, resources, templates, snapshots, objects, pool, activity },
    ...{ owner, agentVersion, log },
  });
  stack.defer(() => vms.close(options.stopGraceMs ?? 30_000));
  await vms.recover(signal);
  await templates.open();
  templates.tidy(isCurrent(dir, hypervisor));
  const service = hostService({ dir, vms, templates, identity: hypervisor.identity, agentVersion });
  const pki = await ensureLocalPki(root);
  const findGuest = (id: string) => vms.address(id);
  const server = await AgentServer.listen({ address: options.listen, pki, service, findGuest, log });
  const renewal = setInterval(() => {
    ensureLocalPki(root).then(
      (renewed) => server.renew(renewed),
      (error: unknown) => log.error({ err: error }, 'certificates cannot be renewed'),
    );
  }, RENEWAL_CHECK_MS);
  renewal.unref();
  stack.defer(() => clearInterval(renewal));
  stack.use(server);
  log.info({ port: server.port, wrennDir: root, hypervisor: hypervisor.identity }, 'agent is ready');
  const owned = stack.move();
  return {
    port: server.port,
    async [Symbol.asyncDispose]() {
      server.stopListening();
      await Promise.all([vms.close(options.stopGraceMs ?? 30_000), pool[Symbol.asyncDispose]()]);
      await owned.disposeAsync();
    },
  };
}

/** Whether a template snapshot can still be asked for: its image, kernel and hypervisor are this machine's. */
function isCurrent(dir: ReturnType<typeof wrennDir>, { identity }: Hypervisor) {
  return async (inputs: TemplateInputs): Promise<boolean> => {
    const [images, kernel] = await Promise.all([listImages(dir), newestKernel(dir)]);
    const { kind, version, accelerator, arch, cpu } = inputs.hypervisor;
    return (
      images.some(({ manifest }) => manifest.sha256 === inputs.imageSha256) &&
      kernel?.version === inputs.kernelVersion &&
      kind === identity.kind &&
      version === identity.version &&
      accelerator === identity.accelerator &&
      arch === identity.arch &&
      cpu === identity.cpu
    );
  };
}
