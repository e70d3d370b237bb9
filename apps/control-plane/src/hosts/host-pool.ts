import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { Turns } from '@wrenn/config/turns';
import { WrennError } from '@wrenn/protocol/errors';
import { and, eq, isNotNull, isNull, or } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { hosts } from '../database/host-schema.ts';
import { type Host, openHost } from './host.ts';
import type { HostEndpoint, HostTrust } from './host-session.ts';
import { type HostEvents, watchHost } from './watch.ts';

/** PostgreSQL's channel on which the id of every host is announced whose connection may have to change. */
export const HOSTS_CHANNEL = 'wrenn_hosts';
/** A net for announcements that were lost. */
const POLL_MS = 30_000;
/** What was announced is read again so soon where that failed. */
const REFRESH_RETRY_MS = 500;
/** Changes that come together are read together. */
const GATHER_MS = 20;
/** A host on the same machine is back in a moment; one of a fleet says so by its heartbeat. */
const LOCAL_RETRY_MS = 2000;
const FLEET_RETRY_MS = 15_000;
/** Handshakes cost CPU, so not all hosts are tried at once; silent ones hold a turn for no longer than a hello takes. */
const ATTEMPTS_AT_ONCE = 128;

export interface HostPoolOptions {
  readonly db: Db;
  readonly trust: HostTrust;
  /** For the host of `localHostId`, which is known by the authority of its machine. */
  readonly localTrust: HostTrust;
  /** The host that this control plane was told of by its address: it need not register. Undefined: there is none. */
  readonly localHostId: string | undefined;
  /** What is done with a host's events. Its signal ends when the host leaves the pool. */
  readonly eventsOf: (host: Host, signal: AbortSignal) => HostEvents;
  /** A byte stream to a host that holds its own connection to this control plane. */
  readonly openLink: (hostId: string, signal: AbortSignal) => Promise<Duplex>;
  readonly log: Logger;
}

interface HostPlace {
  readonly id: string;
  readonly endpoint: HostEndpoint;
}

interface Member {
  readonly host: Host;
  readonly events: HostEvents;
  /** What the connection was made from; another one needs another connection. */
  readonly key: string;
  readonly stop: AbortController;
  nudge: AbortController;
  watching: Promise<void>;
}

/** The hosts that this control plane follows: every one that is registered and not deleted. */
export class HostPool implements AsyncDisposable {
  readonly #options: HostPoolOptions;
  readonly #members = new Map<string, Member>();
  readonly #attempts = new Turns(ATTEMPTS_AT_ONCE);
  readonly #closing = new AbortController();
  readonly #removals = new Set<Promise<void>>();
  #all: readonly Host[] = [];
  #wake = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: HostPoolOptions) {
    this.#options = options;
  }

  get(id: string): Host | undefined {
    return this.#members.get(id)?.host;
  }

  /** @throws WrennError `host_unavailable` when it is none of the pool's */
  require(id: string): Host {
    const host = this.get(id);
    if (!host) throw new WrennError('host_unavailable', {}, { cause: new Error(`${id} is not in the pool`) });
    return host;
  }

  /** Also those that are not online. */
  all(): readonly Host[] {
    return this.#all;
  }

  /** Who hears what a host tells. */
  eventsOf(id: string): HostEvents | undefined {
    return this.#members.get(id)?.events;
  }

  /** A host's row may be another: it is read soon. */
  changed(): void {
    this.#wake.abort();
  }

  /** There is reason to believe that this host can be reached now. */
  nudge(id: string): void {
    const member = this.#members.get(id);
    if (member && !member.host.online) member.nudge.abort();
  }

  /** Opens what there is, and follows changes from then on. Resolves when the first reading is done. */
  async start(): Promise<void> {
    await this.#refresh();
    this.#running = this.#follow();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#running;
    for (const id of [...this.#members.keys()]) this.#remove(id);
    await Promise.all(this.#removals);
  }

  async #follow(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      await delay(POLL_MS, undefined, { signal: AbortSignal.any([signal, this.#wake.signal]) }).catch(() => undefined);
      if (!signal.aborted && this.#wake.signal.aborted) {
        await delay(GATHER_MS, undefined, { signal }).catch(() => undefined);
      }
      if (signal.aborted) return;
      this.#wake = new AbortController();
      try {
        await this.#refresh();
      } catch (err) {
        this.#options.log.warn({ err }, 'could not read the hosts');
        await delay(REFRESH_RETRY_MS, undefined, { signal }).catch(() => undefined);
        this.changed();
      }
    }
  }

  async #refresh(): Promise<void> {
    const places = new Map((await this.#read()).map((place) => [place.id, place]));
    const gone = [...this.#members].filter(([id, { key }]) => key !== keyOf(places.get(id)));
    // A connection that takes its time to end does not hold up the others.
    for (const [id] of gone) this.#remove(id);
    for (const place of places.values()) if (!this.#members.has(place.id)) this.#add(place);
    this.#all = [...this.#members.values()].map(({ host }) => host);
  }

  async #read(): Promise<HostPlace[]> {
    const { db, localHostId } = this.#options;
    const rows = await db
      .select({ id: hosts.id, address: hosts.address, connection: hosts.connection })
      .from(hosts)
      .where(and(isNull(hosts.deletedAt), or(isNotNull(hosts.address), eq(hosts.connection, 'outbound'))));
    return rows.flatMap(({ id, address, connection }): HostPlace[] => {
      if (id === localHostId) return address ? [{ id, endpoint: { address } }] : [];
      if (connection === 'outbound') {
        const openStream = (signal: AbortSignal) => this.#options.openLink(id, signal);
        return [{ id, endpoint: { address: `https://${id}`, commonName: id, openStream } }];
      }
      const url = address?.includes('://') ? address : `https://${address}`;
      return [{ id, endpoint: { address: url, commonName: id } }];
    });
  }

  #add(place: HostPlace): void {
    const { trust, localTrust, eventsOf, localHostId, log } = this.#options;
    const host = openHost(place.id, place.endpoint, place.id === localHostId ? localTrust : trust, log);
    const stop = new AbortController();
    const events = eventsOf(host, stop.signal);
    const member: Member = {
      ...{ host, events, stop, key: keyOf(place), nudge: new AbortController() },
      watching: Promise.resolve(),
    };
    member.watching = watchHost(host, events, {
      signal: stop.signal,
      lastRetryMs: place.id === localHostId ? LOCAL_RETRY_MS : FLEET_RETRY_MS,
      nudged: () => {
        member.nudge = new AbortController();
        return member.nudge.signal;
      },
      admit: (attempt) => this.#attempts.take(attempt, stop.signal),
      log,
    });
    this.#members.set(place.id, member);
  }

  #remove(id: string): void {
    const member = this.#members.get(id);
    if (!member) return;
    this.#members.delete(id);
    const removal = close(member).finally(() => this.#removals.delete(removal));
    this.#removals.add(removal);
  }
}

async function close({ host, stop, watching }: Member): Promise<void> {
  stop.abort();
  await host[Symbol.asyncDispose]();
  await watching;
}

function keyOf(place: HostPlace | undefined): string {
  return place ? `${place.endpoint.address} ${place.endpoint.commonName ?? ''}` : '';
}
