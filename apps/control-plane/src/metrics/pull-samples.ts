import { setTimeout as delay } from 'node:timers/promises';
import { inArray, sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { Db } from '../database/database.ts';
import { hosts as hostTable } from '../database/host-schema.ts';
import type { Host } from '../hosts/host.ts';
import { storeSamples } from './store-samples.ts';

const PULL_PERIOD_MS = 30_000;
const PULL_TIMEOUT_MS = 10_000;
/** A host whose last heartbeat is older sends none. */
const HEARTBEAT_SECONDS = 90;

export interface PullOptions {
  readonly db: Db;
  readonly hosts: () => readonly Host[];
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** Fetches what hosts without heartbeats have measured, every 30 seconds, until the signal ends this. */
export async function pullSamplesRegularly({ db, hosts, signal, log }: PullOptions): Promise<void> {
  const pulled = new Map<string, Date>();
  while (!signal.aborted) {
    await delay(PULL_PERIOD_MS, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    try {
      for (const host of await silentHosts(db, hosts())) {
        const last = await pullSamples(db, host, pulled.get(host.id), signal).catch((err: unknown) => {
          log.debug({ err, host: host.id }, 'could not fetch what a host has measured');
        });
        if (last) pulled.set(host.id, last);
      }
    } catch (err) {
      log.warn({ err }, 'could not fetch what hosts have measured');
    }
  }
}

/** Hosts that are online and send no heartbeats. */
async function silentHosts(db: Db, hosts: readonly Host[]): Promise<Host[]> {
  const online = hosts.filter((host) => host.online);
  if (online.length === 0) return [];
  const beating = await db
    .select({ id: hostTable.id })
    .from(hostTable)
    .where(
      sql`${inArray(
        hostTable.id,
        online.map(({ id }) => id),
      )} AND ${hostTable.lastHeartbeatAt} > now() - ${HEARTBEAT_SECONDS}::int * interval '1 second'`,
    );
  const ids = new Set(beating.map(({ id }) => id));
  return online.filter(({ id }) => !ids.has(id));
}

/** @returns time of the last sample that was stored, from which the next call goes on; undefined: there was none */
export async function pullSamples(
  db: Db,
  host: Pick<Host, 'id' | 'readStats'>,
  since: Date | undefined,
  signal: AbortSignal,
): Promise<Date | undefined> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(PULL_TIMEOUT_MS)]);
  const samples = await host.readStats({ since }, deadline);
  await storeSamples(db, host.id, samples);
  const times = samples.map(({ at }) => Date.parse(at));
  return times.length === 0 ? undefined : new Date(times.reduce((a, b) => Math.max(a, b)));
}
