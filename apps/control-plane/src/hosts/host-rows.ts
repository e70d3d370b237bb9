import { WrennError } from '@wrenn/protocol/errors';
import type { ArrayQuery } from '@wrenn/protocol/rest/paging';
import { and, desc, eq, getTableColumns, isNotNull, isNull, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { type HostRow, hostLoad, hosts, hostTags } from '../database/host-schema.ts';
import { teams } from '../database/people-schema.ts';
import { comesAfter, type Page, pageOf, positionAt } from '../http/cursor.ts';
import { announce } from '../shared/announce.ts';
import type { HostDetails } from './host-body.ts';
import { HOSTS_CHANNEL } from './host-pool.ts';
import { type HostViewer, maySee } from './host-viewer.ts';

const details = {
  host: getTableColumns(hosts),
  teamName: teams.name,
  load: hostLoad,
  tags: sql<string[]>`ARRAY(SELECT ${hostTags.tag} FROM ${hostTags} WHERE ${hostTags.hostId} = ${hosts.id} ORDER BY 1)`,
};

function visible(viewer: HostViewer) {
  return and(isNull(hosts.deletedAt), viewer.isAdmin ? undefined : eq(hosts.teamId, viewer.team?.id ?? ''));
}

/** Newest first: all for administrators, for others those of their team. */
export async function listHosts(db: Db, viewer: HostViewer, { limit, cursor }: ArrayQuery): Promise<Page<HostDetails>> {
  const rows = await db
    .select({ ...details, at: positionAt(hosts.createdAt) })
    .from(hosts)
    .leftJoin(teams, eq(teams.id, hosts.teamId))
    .leftJoin(hostLoad, eq(hostLoad.hostId, hosts.id))
    .where(and(visible(viewer), comesAfter(hosts.createdAt, hosts.id, cursor)))
    .orderBy(desc(hosts.createdAt), desc(hosts.id))
    .limit(limit + 1);
  return pageOf(rows, limit, ({ at, host }) => ({ at, id: host.id }));
}

/** @throws WrennError `host_not_found` also for hosts that are not the caller's to see */
export async function getHost(db: Db, viewer: HostViewer, id: string): Promise<HostDetails> {
  const [row] = await db
    .select(details)
    .from(hosts)
    .leftJoin(teams, eq(teams.id, hosts.teamId))
    .leftJoin(hostLoad, eq(hostLoad.hostId, hosts.id))
    .where(and(visible(viewer), eq(hosts.id, id)));
  if (!row) throw new WrennError('host_not_found', { id });
  return row;
}

/** Whether nobody will ever hear of a host again. */
export async function isHostDeleted(db: Db, id: string): Promise<boolean> {
  return (await db.$count(hosts, and(eq(hosts.id, id), isNotNull(hosts.deletedAt)))) > 0;
}

/** Makes changes of a host wait for each other until the transaction ends. @throws WrennError `host_not_found` */
export async function lockHost(tx: Db, viewer: HostViewer, id: string): Promise<HostRow> {
  const [host] = await tx.select().from(hosts).where(eq(hosts.id, id)).for('no key update');
  if (!host || host.deletedAt || !maySee(viewer, host)) throw new WrennError('host_not_found', { id });
  return host;
}

/** Tells every control plane, once the transaction is committed, that the host's row is another. */
export async function announceHost(tx: Db, id: string): Promise<void> {
  await announce(tx, HOSTS_CHANNEL, id);
}
