import { setTimeout as delay } from 'node:timers/promises';
import { eq, inArray, sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { objectDeletions } from '../database/schema.ts';
import type { Host } from '../hosts/host.ts';
import { listDeleting, markAbandoned, removeSnapshotRow } from '../snapshots/snapshot-store.ts';

const INTERVAL_MS = 60_000;

/** Has objects removed from the object store. In the transaction that makes them needless: so none is forgotten. */
export async function doomObjects(db: Db, objectKeys: readonly string[]): Promise<void> {
  if (objectKeys.length === 0) return;
  const rows = objectKeys.map((objectKey) => ({ objectKey }));
  await db.insert(objectDeletions).values(rows).onConflictDoNothing();
}

/**
 * Removes what nobody needs any more: hibernated generations from the object store, deleted snapshots from their hosts.
 * Each is a row until it is gone; what fails is tried again when a host comes back, and each minute.
 */
export class Leftovers {
  readonly #db: Db;
  readonly #hosts: () => readonly Host[];
  readonly #log: Logger;
  #wake = new AbortController();

  constructor(db: Db, hosts: () => readonly Host[], log: Logger) {
    this.#db = db;
    this.#hosts = hosts;
    this.#log = log;
  }

  /** There is something to do. */
  nudge(): void {
    this.#wake.abort();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#wake = new AbortController();
      try {
        await this.#removeObjects(signal);
        await this.#removeSnapshots(signal);
      } catch (err) {
        if (!signal.aborted) this.#log.warn({ err }, 'could not look for leftovers');
      }
      const woken = AbortSignal.any([signal, this.#wake.signal]);
      await delay(INTERVAL_MS, undefined, { signal: woken }).catch(() => undefined);
    }
  }

  /**
   * Removes some objects now, if any host is online; what fails is left to `run`.
   *
   * @param objectKeys rows of object_deletions
   */
  async removeNow(objectKeys: readonly string[], signal: AbortSignal): Promise<void> {
    if (objectKeys.length > 0) await this.#removeObjects(signal, objectKeys);
  }

  async #removeObjects(signal: AbortSignal, only?: readonly string[]): Promise<void> {
    const rows = await this.#db
      .select()
      .from(objectDeletions)
      .where(only ? inArray(objectDeletions.objectKey, [...only]) : sql`true`);
    for (const { objectKey } of rows) {
      try {
        if (!(await this.#removeFromStores(objectKey, signal))) return;
        await this.#db.delete(objectDeletions).where(eq(objectDeletions.objectKey, objectKey));
      } catch (err) {
        signal.throwIfAborted();
        this.#log.warn({ err, objectKey }, 'could not remove from the object store; will try again');
      }
    }
  }

  /** Asks a host of every store that is in use. @returns false when there is nobody to ask */
  async #removeFromStores(objectKey: string, signal: AbortSignal): Promise<boolean> {
    const online = this.#hosts().filter((host) => host.online);
    const byStore = new Map(online.map((host) => [host.facts?.objectStore ?? '', host]));
    for (const host of byStore.values()) await host.deleteHibernated(objectKey, signal);
    return byStore.size > 0;
  }

  async #removeSnapshots(signal: AbortSignal): Promise<void> {
    await markAbandoned(this.#db);
    for (const { id, objectKey, hostIds } of await listDeleting(this.#db)) {
      const hosts = this.#hosts().filter((host) => host.online && hostIds.includes(host.id));
      if (hosts.length < hostIds.length) continue;
      try {
        // First from where others would fetch it.
        if (objectKey !== null && !(await this.#removeFromStores(objectKey, signal))) continue;
        for (const host of hosts) await host.deleteSnapshot(id, signal);
        await removeSnapshotRow(this.#db, id);
      } catch (err) {
        signal.throwIfAborted();
        this.#log.warn({ err, snapshot: id }, 'could not remove a snapshot; will try again');
      }
    }
  }
}
