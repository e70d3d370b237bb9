import { chmod, mkdir, realpath } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { pathToFileURL } from 'node:url';
import type { ListenAddress } from '@wrenn/config/environment';
import { Turns } from '@wrenn/config/turns';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { listImages, newestKernel } from '@wrenn/guest-image/catalog';
import type { Hypervisor } from '@wrenn/hypervisor/hypervisor';
import { ensureLocalPki } from '@wrenn/pki/local-pki';
import { tracedVerbs } from '@wrenn/tracing/connect';
import { startTracing } from '@wrenn/tracing/tracing';
import type { Logger } from 'pino';
import { lockWrennDir } from './agent-lock.ts';
import { checkPathLength } from './check-wrenn-dir.ts';
import { VmCgroups } from './confinement/vm-cgroups.ts';
import { pkiOf } from './fleet/credentials.ts';
import { heartbeatFacts } from './fleet/host-facts.ts';
import { type FleetOptions, FleetWork, joinFleet } from './fleet/membership.ts';
import { Journal } from './journal/journal.ts';
import { createAgentMetrics } from './metrics/agent-metrics.ts';
import { readyChecks } from './metrics/ready-checks.ts';
import { VmSampler } from './metrics/vm-sampler.ts';
import { WatchServer } from './metrics/watch-server.ts';
import { claimOwner } from './network/claims.ts';
import { applyHostRules } from './network/host-rules.ts';
import { SlotPool } from './network/slot-pool.ts';
import { makeRoomForFetched } from './objects/fetched-space.ts';
import { openObjectStore } from './objects/open-object-store.ts';
import { poolLimits, readySlots, startsAtOnce } from './pool/pool-limits.ts';
import type { PooledVm } from './pool/pooled-vm.ts';
import { StartActivity } from './pool/start-activity.ts';
import { WarmPool } from './pool/warm-pool.ts';
import { type AgentPki, AgentServer } from './server/agent-server.ts';
import { hostService } from './server/host-service.ts';
import { traceSteps } from './server/trace-steps.ts';
import { SnapshotStore } from './snapshots/snapshot-store.ts';
import { ImageExchange } from './templates/image-exchange.ts';
import type { TemplateInputs } from './templates/template-key.ts';
import { TemplateStore } from './templates/template-store.ts';
import { AGENT_VERSION } from './version.ts';
import { hostCapacity } from './vms/check-spec.ts';
import { fetchedSnapshots } from './vms/exchange-snapshot.ts';
import { VmManager } from './vms/vm-manager.ts';

const JOIN_TIMEOUT_MS = 120_000;
const RECOVERY_TIMEOUT_MS = 300_000;
/** What a verb then has not done is undone: within the time that supervisors wait for a program's end. */
const STOP_GRACE_MS = 20_000;
const RENEWAL_CHECK_MS = 86_400_000;

export interface AgentOptions {
  readonly wrennDir: string;
  readonly listen: ListenAddress;
  /** Where /health, /ready and /metrics are served, to everybody who reaches it; nowhere unless told. */
  readonly metricsListen?: ListenAddress | undefined;
  /** Where traces go, see startTracing; nowhere unless told. */
  readonly otlpEndpoint?: string | undefined;
  /** From `chooseHypervisor`. */
  readonly hypervisor: Hypervisor;
  readonly log: Logger;
  /** Where hibernated VMs go, see openObjectStore; a folder in WRENN_DIR unless told. */
  readonly objectStoreUrl?: string;
  /** Network slots made ahead of need; as many as the warm pool expects to be without unless told. */
  readonly slotPoolSize?: number;
  /** What VMs that wait in the warm pool may take of the host's memory together; 0 keeps none; half of it unless told. */
  readonly warmPoolMaxMb?: number | undefined;
  /** Of the platform that this machine joins or has joined; only one on this machine is served unless told. */
  readonly fleet?: FleetOptions;
  /** How long a stop waits for verbs that have begun; 20 s unless told. */
  readonly stopGraceMs?: number;
}

/** A running agent. Disposing it stops the agent and leaves every VM running. */
export interface Agent extends AsyncDisposable {
  /** The port that it listens on. */
  readonly port: number;
  /** The port of /health, /ready and /metrics, where they are served. */
  readonly metricsPort: number | undefined;
}

/**
 * Starts a host agent in this process: brings the machine in line with the journal, adopts the VMs that run, and
 * serves wrenn.host.v1.
 *
 * @throws EnvironmentError when the path of WRENN_DIR is too long; what joinFleet throws; Error when another agent uses it, or the machine
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
  const agentVersion = AGENT_VERSION;
  const itself = { dir, identity: hypervisor.identity, agentVersion };
  const joining = AbortSignal.timeout(JOIN_TIMEOUT_MS);
  const membership = options.fleet && (await joinFleet({ ...options.fleet, dir, facts: itself, log, signal: joining }));
  for (const path of [dir.capsules, dir.templateSnapshots]) {
    await mkdir(path, { recursive: true, mode: 0o711 });
    await chmod(path, 0o711);
  }
  const { otlpEndpoint } = options;
  const tracing = stack.use(startTracing({ endpoint: otlpEndpoint, service: 'wrenn-agent', version: AGENT_VERSION }));
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
  const starts = new Turns(startsAtOnce(hostCapacity()));
  const resources = { hypervisor, slots, cgroups, starts };
  const templates = stack.use(new TemplateStore({ dir, resources, log }));
  const snapshots = new SnapshotStore({ dir, identity: hypervisor.identity, log });
  await snapshots.open();
  const objects = openObjectStore(options.objectStoreUrl ?? pathToFileURL(dir.objects).href);
  const journal = new Journal(dir);
  const images: ImageExchange = stack.use(
    new ImageExchange({ dir, objects, makeRoomForFetched: (bytes) => makeRoomForCopies(bytes), log }),
  );
  const makeRoomForCopies = async (bytes: number) => {
    const copies = [...(await images.copies()), ...(await fetchedSnapshots(snapshots))];
    const removed = await makeRoomForFetched(dir.root, bytes, copies);
    if (removed.length === 0) return;
    log.info({ removed }, 'removed what was fetched from other hosts and not used for long');
    templates.tidy(isCurrent(dir, hypervisor));
    pool.refill();
  };
  // Before what its VMs hold.
  stack.use(pool);
  const sampler = new VmSampler({ running: () => vms.running(), log });
  const vms: VmManager = new VmManager({
    ...{ dir, journal, resources, templates, images, snapshots, objects, pool, activity },
    makeRoomForFetched: makeRoomForCopies,
    ...{ owner, agentVersion, log, beforeEnd: (record) => sampler.lastLook(record) },
  });
  stack.defer(() => vms.close(options.stopGraceMs ?? STOP_GRACE_MS));
  const metrics = createAgentMetrics({ root, vms: () => vms.list(), pool, slots, sampler });
  const { metricsListen } = options;
  // Before the recovery, so that it can be told that it lasts.
  const watch =
    metricsListen &&
    stack.use(
      await WatchServer.listen({ address: metricsListen, metrics, checks: () => readyChecks({ root, vms }), log }),
    );
  await vms.recover(signal);
  await templates.open();
  templates.tidy(isCurrent(dir, hypervisor));
  const sampling = new AbortController();
  const sampled = sampler.run(sampling.signal);
  stack.defer(() => {
    sampling.abort();
    return sampled;
  });
  const service = hostService({ dir, vms, templates, objects, sampler, identity: hypervisor.identity, agentVersion });
  const pki = membership ? pkiOf(membership.credentials) : await ensureLocalPki(root);
  const findGuest = (id: string) => vms.address(id);
  const server = await AgentServer.listen({
    ...{ address: options.listen, pki, service, findGuest, log },
    interceptors: [tracedVerbs(tracing.tracer), traceSteps, metrics.interceptor],
  });
  if (!membership) stack.use(renewLocalPki(root, server, log));
  log.info({ port: server.port, wrennDir: root, hypervisor: hypervisor.identity }, 'agent is ready');
  if (membership) {
    const facts = () => heartbeatFacts(itself, vms.list());
    const takeSamples = () => sampler.takeSamples();
    const onRenewed = (renewed: AgentPki) => server.renew(renewed);
    const accept = (stream: Duplex) => server.accept(stream);
    stack.use(new FleetWork(membership, { dir, onRenewed, accept, facts, takeSamples, log }));
  }
  // Before connections that this agent brought end: the last answers go over them.
  stack.use(server);
  const owned = stack.move();
  return {
    port: server.port,
    metricsPort: watch?.port,
    async [Symbol.asyncDispose]() {
      server.stopListening();
      await Promise.all([vms.close(options.stopGraceMs ?? STOP_GRACE_MS), pool[Symbol.asyncDispose]()]);
      await owned.disposeAsync();
    },
  };
}

/** The certificates of this machine's own authority last a year, which an agent may outlive. */
function renewLocalPki(root: string, server: AgentServer, log: Logger): Disposable {
  const timer = setInterval(() => {
    ensureLocalPki(root).then(
      (renewed) => server.renew(renewed),
      (error: unknown) => log.error({ err: error }, 'certificates cannot be renewed'),
    );
  }, RENEWAL_CHECK_MS);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
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
