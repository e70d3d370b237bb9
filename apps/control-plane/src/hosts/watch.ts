import { setTimeout as delay } from 'node:timers/promises';
import type { Vm } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { Logger } from 'pino';
import type { Host } from './host.ts';

const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 2000;

/** What a host tells. Handlers run one after the other, in the order of the events. */
export interface HostEvents {
  /** The connection stands and the versions agree. */
  onConnected(): Promise<void>;
  onVm(vm: Vm): Promise<void>;
  onDestroyed(vmId: string): Promise<void>;
  /** Every VM that the host has was given to onVm; these are their ids. */
  onSynced(vmIds: ReadonlySet<string>): Promise<void>;
  /** Nothing was heard for the time of grace. Called once for each silence. */
  onSilent(): Promise<void>;
}

export interface WatchOptions {
  /** How long a host may be silent before its capsules count as missing. */
  readonly silenceMs: number;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** Follows a host until the signal ends it: connects, reads its events, and connects again when it went silent. */
export async function watchHost(host: Host, events: HostEvents, options: WatchOptions): Promise<void> {
  const { silenceMs, signal, log } = options;
  let retryMs = FIRST_RETRY_MS;
  let heardAt = performance.now();
  let silent = false;
  let isNew = true;
  while (!signal.aborted) {
    try {
      await host.hello(signal);
      await events.onConnected();
      await follow(host, events, signal, () => {
        retryMs = FIRST_RETRY_MS;
        heardAt = performance.now();
        silent = false;
        isNew = true;
      });
    } catch (err) {
      if (signal.aborted) break;
      // The first failure says why; the many that follow are the same.
      log[isNew ? 'warn' : 'debug']({ err, host: host.id }, 'no events from the host');
      isNew = false;
    }
    if (host.online) heardAt = performance.now();
    host.online = false;
    await delay(retryMs, undefined, { signal }).catch(() => undefined);
    retryMs = Math.min(retryMs * 2, LAST_RETRY_MS);
    if (!silent && !signal.aborted && performance.now() - heardAt >= silenceMs) {
      silent = true;
      await events.onSilent().catch((err: unknown) => {
        silent = false;
        log.error({ err, host: host.id }, 'could not record that the host is silent');
      });
    }
  }
  host.online = false;
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
        break;
      case 'keepalive':
      case undefined:
        break;
    }
  }
  throw new Error('the host ended its events');
}
