import { EventEmitter, once } from 'node:events';
import type { Duplex } from 'node:stream';
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { fromConnectError } from '@wrenn/protocol/connect-errors';
import { WrennError } from '@wrenn/protocol/errors';
import {
  type ForkVmResponse,
  type HelloResponse,
  HostService,
  MemoryUse,
  type PauseVmResponse,
  type Snapshot,
  type VerifyVmResponse,
  type Vm,
  VmState,
} from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { tracedCalls } from '@wrenn/tracing/connect';
import type { Logger } from 'pino';
import type { HostSample } from '../metrics/store-samples.ts';
import { PROGRAM_VERSION } from '../version.ts';
import { type HostEndpoint, HostSession, type HostTrust } from './host-session.ts';
import { readStats, type WantedStats } from './read-stats.ts';
import { openTunnel } from './tunnel.ts';

/** Versions of wrenn.host.v1 that this program speaks. */
const PROTOCOL = { min: 1, max: 1 } as const;
const HELLO_TIMEOUT_MS = 10_000;
/** The first start of a shape boots cold, under emulation too. */
const CREATE_TIMEOUT_MS = 600_000;
const DESTROY_TIMEOUT_MS = 120_000;
const CONSOLE_TIMEOUT_MS = 10_000;
const GET_TIMEOUT_MS = 10_000;
const STATS_TIMEOUT_MS = 30_000;
/** All of the guest's memory goes to the host's disk. */
const SAVE_TIMEOUT_MS = 600_000;
/** All of it is read from that disk. */
const READ_TIMEOUT_MS = 1_800_000;
/** All of it goes over a line to the object store and back. */
const TRANSFER_TIMEOUT_MS = 7_200_000;
const CONNECTION_CODES: readonly Code[] = [Code.Canceled, Code.Unknown, Code.Aborted, Code.Internal, Code.Unavailable];

/** What one /init call tells the guest. */
export interface GuestInit {
  readonly accessToken: string;
  readonly envs: Record<string, string>;
  readonly hostname: string;
}

/** What CreateVm needs to know. */
export interface VmRequest {
  readonly id: string;
  readonly template: string;
  readonly vcpus: number;
  readonly memoryMb: number;
  /** 0: the template's default. */
  readonly diskMb: number;
  readonly init: GuestInit;
  /** The snapshot to start from, in place of the template's own. */
  readonly snapshotId?: string | undefined;
  /** Where the template or snapshot is in the object store, for a host that does not have it. */
  readonly objectKey?: string | undefined;
}

/** What ResumeVm needs to know. */
export interface ResumeRequest {
  readonly id: string;
  readonly generation: number;
  readonly init: GuestInit;
  readonly memory: 'keep' | 'discard';
  /** Where the generation is in the object store, if it is there. */
  readonly objectKey?: string | undefined;
}

/** A host as the rest of the control plane sees it. Errors are WrennErrors. */
export interface Host extends AsyncDisposable {
  readonly id: string;
  readonly address: string;
  /** What the agent said last about the machine; undefined until it first answered. */
  readonly facts: HelloResponse | undefined;
  /** When it was last known to be there, by performance.now(); undefined: never. */
  readonly heardMs: number | undefined;
  /** Whether the agent's events arrive right now. Set by whoever reads them. */
  online: boolean;
  /** Connected, and what it has is being compared with the database. Set by whoever reads its events. */
  comparing: boolean;
  /** Resolves as soon as the host is online. @throws WrennError `host_unavailable` when it was disposed */
  whenOnline(signal: AbortSignal): Promise<void>;
  hello(signal: AbortSignal): Promise<HelloResponse>;
  createVm(request: VmRequest, signal: AbortSignal): Promise<Vm>;
  /** An unknown id is a success. */
  destroyVm(id: string, signal: AbortSignal): Promise<void>;
  /** Undefined when the host does not know it. */
  getVm(id: string, signal: AbortSignal): Promise<Vm | undefined>;
  /** Answers when generation `generation` is on stable storage and the VM has ended. */
  pauseVm(id: string, generation: number, signal: AbortSignal): Promise<PauseVmResponse>;
  /** @throws WrennError `snapshot_damaged` or `snapshot_incompatible` when its memory cannot be restored */
  resumeVm(request: ResumeRequest, signal: AbortSignal): Promise<Vm>;
  /** The children in the order of the request: all of them or none. */
  forkVm(
    id: string,
    children: readonly { id: string; init: GuestInit }[],
    signal: AbortSignal,
  ): Promise<ForkVmResponse>;
  snapshotVm(id: string, snapshotId: string, signal: AbortSignal): Promise<Snapshot>;
  /** Puts what others need of it into the object store, where it is not yet. @returns its key there */
  publishTemplate(name: string, signal: AbortSignal): Promise<string>;
  publishSnapshot(snapshotId: string, signal: AbortSignal): Promise<string>;
  /** An unknown id is a success. */
  deleteSnapshot(snapshotId: string, signal: AbortSignal): Promise<void>;
  verifyVm(id: string, signal: AbortSignal): Promise<VerifyVmResponse>;
  /** Answers when everything was read back from the object store. The host keeps its own copy. */
  hibernateVm(id: string, generation: number, objectKey: string, signal: AbortSignal): Promise<void>;
  /** Frees the copy of a sleeping VM that is in the object store. An unknown id is a success. */
  forgetVm(id: string, generation: number, signal: AbortSignal): Promise<void>;
  /** An unknown key is a success. */
  deleteHibernated(objectKey: string, signal: AbortSignal): Promise<void>;
  readConsole(id: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array>;
  /** What was measured since, the oldest first; an agent of before this verb has measured nothing. */
  readStats(wanted: WantedStats, signal: AbortSignal): Promise<HostSample[]>;
  /** The agent's events; ends with an error when the connection does. */
  watch(signal: AbortSignal): ReturnType<Client<typeof HostService>['watchVms']>;
  /** A byte stream to a port in a guest. */
  tunnel(vmId: string, port: number): Promise<Duplex>;
}

export function openHost(id: string, endpoint: HostEndpoint, trust: HostTrust, log: Logger): Host {
  const { address } = endpoint;
  const session = new HostSession(endpoint, trust, log);
  const transport = createConnectTransport({
    httpVersion: '2',
    baseUrl: session.authority,
    sessionManager: session,
    // Messages are small and the line is local or fast.
    acceptCompression: [],
    interceptors: [tracedCalls],
  });
  const client = createClient(HostService, transport);
  let facts: HelloResponse | undefined;
  let online = false;
  const changes = new EventEmitter().setMaxListeners(0);
  const disposed = new AbortController();

  return {
    id,
    address,
    get heardMs() {
      return session.heardMs;
    },
    comparing: false,
    get online() {
      return online;
    },
    set online(value) {
      online = value;
      if (value) changes.emit('online');
    },
    whenOnline: async (signal) => {
      if (online) return;
      try {
        await once(changes, 'online', { signal: AbortSignal.any([signal, disposed.signal]) });
      } catch (error) {
        signal.throwIfAborted();
        throw new WrennError('host_unavailable', {}, { cause: error });
      }
    },
    get facts() {
      return facts;
    },
    hello: async (signal) => {
      facts = await call(() =>
        client.hello(
          { protocolMin: PROTOCOL.min, protocolMax: PROTOCOL.max, controlPlaneVersion: PROGRAM_VERSION },
          { signal, timeoutMs: HELLO_TIMEOUT_MS },
        ),
      );
      return facts;
    },
    createVm: async (request, signal) => {
      const { id: vmId, template, vcpus, memoryMb, diskMb, init, snapshotId = '', objectKey = '' } = request;
      const timeoutMs = objectKey ? TRANSFER_TIMEOUT_MS : CREATE_TIMEOUT_MS;
      const { vm } = await call(() =>
        client.createVm(
          { id: vmId, template, shape: { vcpus, memoryMb }, diskMb, init, snapshotId, objectKey },
          { signal, timeoutMs },
        ),
      );
      return requireRunning(vm);
    },
    destroyVm: async (vmId, signal) => {
      await call(() => client.destroyVm({ id: vmId }, { signal, timeoutMs: DESTROY_TIMEOUT_MS }));
    },
    getVm: async (vmId, signal) => {
      try {
        return (await call(() => client.getVm({ id: vmId }, { signal, timeoutMs: GET_TIMEOUT_MS }))).vm;
      } catch (error) {
        if (error instanceof WrennError && error.code === 'capsule_not_found') return undefined;
        throw error;
      }
    },
    pauseVm: (vmId, generation, signal) =>
      call(() => client.pauseVm({ id: vmId, generation }, { signal, timeoutMs: SAVE_TIMEOUT_MS })),
    resumeVm: async ({ id: vmId, generation, init, memory, objectKey = '' }, signal) => {
      const use = memory === 'discard' ? MemoryUse.DISCARD : MemoryUse.KEEP;
      const timeoutMs = objectKey ? TRANSFER_TIMEOUT_MS : CREATE_TIMEOUT_MS;
      const { vm } = await call(() =>
        client.resumeVm({ id: vmId, generation, init, memory: use, objectKey }, { signal, timeoutMs }),
      );
      return requireRunning(vm);
    },
    forkVm: (vmId, children, signal) =>
      call(() => client.forkVm({ id: vmId, children: [...children] }, { signal, timeoutMs: CREATE_TIMEOUT_MS })),
    snapshotVm: async (vmId, snapshotId, signal) => {
      const { snapshot } = await call(() =>
        client.snapshotVm({ id: vmId, snapshotId }, { signal, timeoutMs: READ_TIMEOUT_MS }),
      );
      if (!snapshot) throw new WrennError('internal_error');
      return snapshot;
    },
    publishTemplate: async (name, signal) => {
      const { objectKey } = await call(() =>
        client.publishTemplate({ name }, { signal, timeoutMs: TRANSFER_TIMEOUT_MS }),
      );
      return objectKey;
    },
    publishSnapshot: async (snapshotId, signal) => {
      const { objectKey } = await call(() =>
        client.publishSnapshot({ snapshotId }, { signal, timeoutMs: TRANSFER_TIMEOUT_MS }),
      );
      return objectKey;
    },
    deleteSnapshot: async (snapshotId, signal) => {
      await call(() => client.deleteSnapshot({ snapshotId }, { signal, timeoutMs: DESTROY_TIMEOUT_MS }));
    },
    verifyVm: (vmId, signal) => call(() => client.verifyVm({ id: vmId }, { signal, timeoutMs: READ_TIMEOUT_MS })),
    hibernateVm: async (vmId, generation, objectKey, signal) => {
      await call(() =>
        client.hibernateVm({ id: vmId, generation, objectKey }, { signal, timeoutMs: TRANSFER_TIMEOUT_MS }),
      );
    },
    forgetVm: async (vmId, generation, signal) => {
      await call(() => client.forgetVm({ id: vmId, generation }, { signal, timeoutMs: DESTROY_TIMEOUT_MS }));
    },
    deleteHibernated: async (objectKey, signal) => {
      await call(() => client.deleteHibernated({ objectKey }, { signal, timeoutMs: DESTROY_TIMEOUT_MS }));
    },
    readConsole: async (vmId, maxBytes, signal) => {
      const { data } = await call(() =>
        client.getVmConsole({ id: vmId, maxBytes }, { signal, timeoutMs: CONSOLE_TIMEOUT_MS }),
      );
      return data;
    },
    readStats: (wanted, signal) => call(() => readStats(client, wanted, { signal, timeoutMs: STATS_TIMEOUT_MS })),
    watch: (signal) => client.watchVms({}, { signal }),
    tunnel: (vmId, port) => openTunnel(session, vmId, port),
    [Symbol.asyncDispose]: async () => {
      disposed.abort();
      await session[Symbol.asyncDispose]();
    },
  };
}

/** Runs a call and turns what it throws into an error of the catalogue. */
async function call<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    if (error.cause instanceof WrennError) throw error.cause;
    // The agent's own errors say what they are in a detail. One without it is of the connection.
    if (error.details.length === 0 && CONNECTION_CODES.includes(error.code)) {
      throw new WrennError('host_unavailable', {}, { cause: error });
    }
    throw fromConnectError(error);
  }
}

function requireRunning(vm: Vm | undefined): Vm {
  if (vm?.state === VmState.RUNNING) return vm;
  throw new WrennError('vm_start_failed', { problem: vm?.reason || 'the host gave no reason' });
}
