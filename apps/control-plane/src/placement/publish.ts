import { WrennError } from '@wrenn/protocol/errors';
import { eq, sql } from 'drizzle-orm';
import { doomObjects } from '../capsules/leftovers.ts';
import type { LifecycleDeps } from '../capsules/lifecycle-deps.ts';
import type { Db } from '../database/database.ts';
import { hosts, publishedTemplates } from '../database/host-schema.ts';
import { addCopy, recordPublished } from '../snapshots/snapshot-store.ts';

type PublishDeps = Pick<LifecycleDeps, 'db' | 'hostOf' | 'leftovers' | 'log'>;

/** A place in an object store for templates of some hosts. */
interface Shelf {
  readonly objectStore: string;
  readonly arch: string;
  /** Whose hosts' templates they are; null: the platform's. */
  readonly teamId: string | null;
}

/**
 * Has a template put into the object store for a host that lacks it: by a host that has it and is online, or else as it
 * was put there before.
 *
 * @returns its key there
 * @throws WrennError `template_not_found` when it is not to be had, `object_store_failed`
 */
export async function publishTemplateFor(
  deps: PublishDeps,
  hostId: string,
  name: string,
  signal: AbortSignal,
): Promise<string> {
  const { db, hostOf, log } = deps;
  let failure: unknown;
  for (const { id, ...shelf } of await findOwners(db, hostId, name)) {
    const owner = hostOf(id);
    if (!owner.online) continue;
    try {
      const objectKey = await owner.publishTemplate(name, signal);
      await recordTemplateKey(db, name, shelf, objectKey);
      return objectKey;
    } catch (error) {
      signal.throwIfAborted();
      log.warn({ err: error, host: id, template: name }, 'a host could not give its template to another');
      failure = error;
    }
  }
  const objectKey = await findTemplateKey(db, hostId, name);
  if (objectKey !== undefined) return objectKey;
  throw failure ?? new WrennError('template_not_found', { name });
}

/** Hosts whose templates that host may have, in random order: each may be asked. */
async function findOwners(db: Db, hostId: string, name: string): Promise<(Shelf & { id: string })[]> {
  const { rows } = await db.execute<{ id: string; object_store: string; arch: string; team_id: string | null }>(sql`
    SELECT o.id, o.object_store, o.arch, o.team_id FROM hosts h JOIN hosts o
      ON o.object_store = h.object_store AND o.arch = h.arch AND (o.team_id IS NULL OR o.team_id = h.team_id)
    WHERE h.id = ${hostId} AND o.id <> h.id AND ${name} = ANY (o.templates)
      AND o.status IN ('online', 'draining') AND o.deleted_at IS NULL
    ORDER BY o.team_id NULLS LAST, random() LIMIT 10`);
  return rows.map(({ id, object_store: objectStore, arch, team_id: teamId }) => ({ id, objectStore, arch, teamId }));
}

async function recordTemplateKey(db: Db, name: string, shelf: Shelf, objectKey: string): Promise<void> {
  const { objectStore, arch, teamId } = publishedTemplates;
  await db
    .insert(publishedTemplates)
    .values({ ...shelf, name, objectKey })
    .onConflictDoUpdate({
      target: [publishedTemplates.name, objectStore, arch, teamId],
      set: { objectKey, publishedAt: sql`now()` },
    });
}

/** A team's own before the platform's. */
async function findTemplateKey(db: Db, hostId: string, name: string): Promise<string | undefined> {
  const { rows } = await db.execute<{ object_key: string }>(sql`
    SELECT p.object_key FROM hosts h JOIN published_templates p
      ON p.object_store = h.object_store AND p.arch = h.arch AND (p.team_id IS NULL OR p.team_id = h.team_id)
    WHERE h.id = ${hostId} AND p.name = ${name}
    ORDER BY p.team_id NULLS LAST LIMIT 1`);
  return rows[0]?.object_key;
}

/** A host has fetched a template; its own reports say so later. */
export async function recordTemplate(db: Db, hostId: string, name: string): Promise<void> {
  await db
    .update(hosts)
    .set({ templates: sql`${hosts.templates} || ${name}::text` })
    .where(sql`${eq(hosts.id, hostId)} AND NOT ${name} = ANY (${hosts.templates})`);
}

/**
 * The same of a snapshot, by the host where it was made.
 *
 * @throws WrennError `template_not_found` when it is not there any more, `host_unavailable`, `object_store_failed`
 */
export async function publishSnapshotFor(
  { db, hostOf, leftovers }: PublishDeps,
  hostId: string,
  snapshotId: string,
  signal: AbortSignal,
): Promise<string> {
  // Before it is fetched, so that whoever deletes it knows of every copy.
  const snapshot = await addCopy(db, snapshotId, hostId);
  if (!snapshot) throw new WrennError('template_not_found', { name: snapshotId });
  if (snapshot.objectKey !== null) return snapshot.objectKey;
  if (snapshot.hostId === hostId) throw new WrennError('template_not_found', { name: snapshot.name });
  const objectKey = await hostOf(snapshot.hostId).publishSnapshot(snapshotId, signal);
  if (await recordPublished(db, snapshotId, objectKey)) return objectKey;
  await doomObjects(db, [objectKey]);
  leftovers.nudge();
  throw new WrennError('template_not_found', { name: snapshotId });
}
