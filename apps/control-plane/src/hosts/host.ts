import { EventEmitter, once } from 'node:events';
import type { Duplex } from 'node:stream';
import { type Client, Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { fromConnectError } from '@wrenn/protocol/connect-errors';
import { WrennError } from '@wrenn/protocol/errors';
import { type HelloResponse, HostService, type Vm, VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Logger } from 'pino';
import { PROGRAM_VERSION } from '../version.ts';
import { HostSession, type HostTrust } from './host-session.ts';
import { openTunnel } from './tunnel.ts';

/** Versions of wrenn.host.v1 that this program speaks. */
const PROTOCOL = { min: 1, max: 1 } as const;
const HELLO_TIMEOUT_MS = 10_000;
/** The first start of a shape boots cold, under emulation too. */
const CREATE_TIMEOUT_MS = 600_000;
const DESTROY_TIMEOUT_MS = 120_000;
const CONSOLE_TIMEOUT_MS = 10_000;
const CONNECTION_CODES: readonly Code[] = [Code.Canceled, Code.Unknown, Code.Aborted, Code.Internal, Code.Unavailable];

/** What CreateVm needs to know. */
export interface VmRequest {
  readonly id: string;
  readonly template: string;
  readonly vcpus: number;
  readonly memoryMb: number;
  /** 0: the template's default. */
  readonly diskMb: number;
  readonly init: { readonly accessToken: string; readonly envs: Record<string, string>; readonly hostname: string };
}

/** A host as the rest of the control plane sees it. Errors are WrennErrors. */
export interface Host extends AsyncDisposable {
  readonly id: string;
  readonly address: string;
  /** What the agent said last about the machine; undefined until it first answered. */
  readonly facts: HelloResponse | undefined;
  /** Whether the agent's events arrive right now. Set by whoever reads them. */
  online: boolean;
  /** Resolves as soon as the host is online. */
  whenOnline(signal: AbortSignal): Promise<void>;
  hello(signal: AbortSignal): Promise<HelloResponse>;
  createVm(request: VmRequest, signal: AbortSignal): Promise<Vm>;
  /** An unknown id is a success. */
  destroyVm(id: string, signal: AbortSignal): Promise<void>;
  readConsole(id: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array>;
  /** The agent's events; ends with an error when the connection does. */
  watch(signal: AbortSignal): ReturnType<Client<typeof HostService>['watchVms']>;
  /** A byte stream to a port in a guest. */
  tunnel(vmId: string, port: number): Promise<Duplex>;
}

export function openHost(id: string, address: string, trust: HostTrust, log: Logger): Host {
  const session = new HostSession(address, trust, log);
  const transport = createConnectTransport({
    httpVersion: '2',
    baseUrl: session.authority,
    sessionManager: session,
    // Messages are small and the line is local or fast.
    acceptCompression: [],
  });
  const client = createClient(HostService, transport);
  let facts: HelloResponse | undefined;
  let online = false;
  const changes = new EventEmitter().setMaxListeners(0);

  return {
    id,
    address,
    get online() {
      return online;
    },
    set online(value) {
      online = value;
      if (value) changes.emit('online');
    },
    whenOnline: async (signal) => {
      if (!online) await once(changes, 'online', { signal });
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
    createVm: async ({ id: vmId, template, vcpus, memoryMb, diskMb, init }, signal) => {
      const { vm } = await call(() =>
        client.createVm(
          { id: vmId, template, shape: { vcpus, memoryMb }, diskMb, init },
          { signal, timeoutMs: CREATE_TIMEOUT_MS },
        ),
      );
      if (vm?.state !== VmState.RUNNING) throw vmFailure(vm);
      return vm;
    },
    destroyVm: async (vmId, signal) => {
      await call(() => client.destroyVm({ id: vmId }, { signal, timeoutMs: DESTROY_TIMEOUT_MS }));
    },
    readConsole: async (vmId, maxBytes, signal) => {
      const { data } = await call(() =>
        client.getVmConsole({ id: vmId, maxBytes }, { signal, timeoutMs: CONSOLE_TIMEOUT_MS }),
      );
      return data;
    },
    watch: (signal) => client.watchVms({}, { signal }),
    tunnel: (vmId, port) => openTunnel(session, vmId, port),
    [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
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

/** Why a VM is not running, as its agent says. */
export function vmFailure(vm: Vm | undefined): WrennError {
  return new WrennError('vm_start_failed', { problem: vm?.reason || 'the host gave no reason' });
}
