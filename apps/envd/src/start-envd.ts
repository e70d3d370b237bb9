import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { constants, tmpdir } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import { GUEST_LEASE_DIRECTORY, makeLeaseDirectory } from './activity/leases.ts';
import { createGuestState } from './guest-state.ts';
import { describeError, log } from './log.ts';
import { ProcessTable } from './process/process-table.ts';
import { createEnvdServer } from './server/envd-server.ts';
import type { RpcHandler } from './server/rpc-handler.ts';
import { type GuestSystem, realSystem } from './system/init.ts';

export interface EnvdOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** Whether this machine is a guest, so that its clock, name and random numbers are envd's to set. */
  readonly guest: boolean;
  /** Stands in for the machine. */
  readonly system?: GuestSystem;
  readonly spillDirectory?: string;
  /** Where programs hold leases; a guest has its own place, elsewhere there are none by default. */
  readonly leaseDirectory?: string | undefined;
}

export interface RunningEnvd extends AsyncDisposable {
  readonly port: number;
  /** Stops listening and kills what it started. */
  close(): Promise<void>;
}

const GUEST_SPILL_DIRECTORY = '/var/lib/wrenn';

export async function startEnvd(options: EnvdOptions): Promise<RunningEnvd> {
  const { guest } = options;
  const spillDirectory = options.spillDirectory ?? (guest ? GUEST_SPILL_DIRECTORY : tmpdir());
  mkdirSync(spillDirectory, { recursive: true });
  const leaseDirectory = options.leaseDirectory ?? (guest ? GUEST_LEASE_DIRECTORY : undefined);
  if (leaseDirectory !== undefined) prepareLeases(leaseDirectory);
  const state = createGuestState(guest);
  const table = new ProcessTable();
  const activity = { guest, leaseDirectory, table };
  let handler: Promise<RpcHandler> | undefined;
  const rpc = () => {
    handler ??= import('./server/rpc-handler.ts').then(({ createRpcHandler }) =>
      createRpcHandler({ state, guest, spillDirectory, table }),
    );
    return handler;
  };
  let ready: Promise<void> = Promise.resolve();
  const server = createEnvdServer({
    state,
    system: options.system ?? (guest ? realSystem : undefined),
    rpc,
    ready: () => ready,
    // What ran for whoever had the guest before is nobody else's.
    onNewToken: () => table.forgetEnded(),
    activity,
  });
  server.listen(options.port, options.host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  // /health answers from here on; the rest is loaded before anybody asks, and before a snapshot is taken.
  ready = (async () => {
    await setImmediate();
    await rpc();
    if (!guest) return;
    const { readActivity } = await import('./activity/activity.ts');
    await readActivity(activity);
    const { warmUp } = await import('./warm-up.ts');
    await warmUp(port, () => state.accessToken);
  })().catch((error: unknown) => log('error', 'the warm-up failed', { error: describeError(error) }));
  const close = async () => {
    for (const process of table.running()) {
      try {
        process.signal(constants.signals.SIGKILL);
      } catch (error) {
        log('warn', 'a process could not be killed', { pid: process.pid, error: describeError(error) });
      }
    }
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  };
  return { port, close, [Symbol.asyncDispose]: close };
}

/** A guest whose programs cannot hold leases is still of use. */
function prepareLeases(directory: string): void {
  try {
    makeLeaseDirectory(directory);
  } catch (error) {
    log('warn', 'the directory of leases could not be made', { directory, error: describeError(error) });
  }
}
