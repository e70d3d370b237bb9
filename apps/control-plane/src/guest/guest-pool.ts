import type { Capsule } from '../database/schema.ts';
import type { Host } from '../hosts/host.ts';
import { type Guest, openGuest } from './guest.ts';

/** The connections to all guests in use. Each capsule has one entry, which goes with the capsule. */
export class GuestPool implements Disposable {
  readonly #hosts: (hostId: string) => Host;
  readonly #guests = new Map<string, { readonly guest: Guest; readonly accessToken: string; readonly host: Host }>();

  constructor(hosts: (hostId: string) => Host) {
    this.#hosts = hosts;
  }

  get({ id, hostId, accessToken }: Pick<Capsule, 'id' | 'hostId' | 'accessToken'>): Guest {
    const host = this.#hosts(hostId);
    const found = this.#guests.get(id);
    if (found && found.accessToken === accessToken && found.host === host) return found.guest;
    found?.guest[Symbol.dispose]();
    const guest = openGuest(host, id, accessToken);
    this.#guests.set(id, { guest, accessToken, host });
    return guest;
  }

  /** Closes what is open to a capsule that has ended; streams on it end with an error. */
  evict(id: string): void {
    this.#guests.get(id)?.guest[Symbol.dispose]();
    this.#guests.delete(id);
  }

  [Symbol.dispose](): void {
    for (const id of [...this.#guests.keys()]) this.evict(id);
  }
}
