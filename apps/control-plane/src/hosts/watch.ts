import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import type { Vm } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Heartbeat } from '@wrenn/protocol/rest/hosts';
import type { Logger } from 'pino';
import type { Host } from './host.ts';

const FIRST_RETRY_MS = 100;

/** What a host has, as its heartbeat says. */
export type Inventory = Heartbeat['vms'];

/** What a host tells. Handlers run one after the other, in the order of the events. */
export interface HostEvents {
  /** The connection stands and the versions agree. */
  onConnected(): Promise<void>;
  onVm(vm: Vm): Promise<void>;
  onDestroyed(vmId: string): Promise<void>;
  /** Every VM that the host has was given to onVm; these are their ids. */
  onSynced(vmIds: ReadonlySet<string>): Promise<void>;
  /** From now on it can be asked. */
  onOnline(): void;
  /** A capsule of this host is in the middle of something, and nobody works on it. */
  onLeftBehind(capsuleId: string): Promise<void>;
  /**
   * All that it has, in a heartbeat. What differs is looked at afterwards.
   *
   * @returns how many of its microVMs this database does not know
   */
  onInventory(vms: Inventory): Promise<number>;
  /** The host was not reached, or refused. Called for the first of a row of the same failures. */
  onFailed(error: unknown): Promise<void>;
  /** The host was online and is so no more. */
  onLost(): Promise<void>;
}

export interface WatchOptions {
  readonly signal: AbortSignal;
  /** How long the wait between two attempts may become. */
  readonly lastRetryMs: number;
  /** Fires when there is reason to try at once. Asked for anew before each wait. */
  readonly nudged: () => AbortSignal;
  /** Runs an attempt to connect when there is room for one more. */
  readonly admit: (attempt: () => Promise<void>) => Promise<void>;
  readonly log: Logger;
}

/** Follows a host until the signal ends it: connects, reads its events, and connects again when it went silent. */
export async function watchHost(host: Host, events: HostEvents, options: WatchOptions): Promise<void> {
  const { signal, lastRetryMs, nudged, admit, log } = options;
  let retryMs = FIRST_RETRY_MS;
  let known: string | undefined;
  while (!signal.aborted) {
    const nudge = nudged();
    try {
      await admit(async () => {
        signal.throwIfAborted();
        await host.hello(signal);
        host.comparing = true;
      });
      await events.onConnected();
      await follow(host, events, signal, () => {
        retryMs = FIRST_RETRY_MS;
        known = undefined;
      });
    } catch (err) {
      if (signal.aborted) break;
      // Of a row of the same failures the first says why.
      const kind = err instanceof WrennError ? err.code : 'no events';
      const isNew = kind !== known;
      known = kind;
      log[isNew ? 'warn' : 'debug']({ err, host: host.id }, 'no events from the host');
      if (isNew) {
        await events
          .onFailed(err)
          .catch((error: unknown) => log.warn({ err: error, host: host.id }, 'could not record why a host fails'));
      }
    }
    host.comparing = false;
    if (host.online) {
      host.online = false;
      await events
        .onLost()
        .catch((error: unknown) => log.warn({ err: error, host: host.id }, 'could not record when a host was lost'));
    }
    // Hosts that were lost together do not come back together.
    const waitMs = retryMs * (0.75 + Math.random() / 2);
    await delay(waitMs, undefined, { signal: AbortSignal.any([signal, nudge]) }).catch(() => undefined);
    retryMs = Math.min(retryMs * 2, lastRetryMs);
  }
  host.online = false;
  host.comparing = false;
}

async function follow(host: Host, events: HostEvents, signal: AbortSignal, onHeard: () => void): Promise<void> {
  const seen = new Set<string>();
  for await (const { event } of host.watch(signal)) {
    onHeard();
    switch (event.case) {
      case 'vm':
        if (!host.online) seen.add(event.value.id);
        await events.onVm(event.value);
        break;
      case 'destroyed':
        seen.delete(event.value);
        await events.onDestroyed(event.value);
        break;
      case 'synced':
        await events.onSynced(seen);
        host.online = true;
        host.comparing = false;
        events.onOnline();
        break;
      case 'keepalive':
      case undefined:
        break;
    }
  }
  throw new Error('the host ended its events');
}
