import { type SQL, sql } from 'drizzle-orm';
import type { Db } from '../database/database.ts';
import { observed } from '../metrics/observe.ts';
import { explainFullHost, explainRefusal } from './explain-refusal.ts';
import { hostFilters, isHere } from './host-filters.ts';
import { hasRoom, type Room, roomColumns, roomFor, scoreOf } from './host-room.ts';
import type { Needs } from './needs.ts';
import type { PlacementSettings } from './placement-settings.ts';

export interface PlacementDeps {
  readonly settings: PlacementSettings;
  /** Whether this control plane can ask that host for something right now. Default: all of them. */
  readonly isReachable?: (hostId: string) => boolean;
  /** Told how each search ended: `ok` or a code of the error catalogue. */
  readonly record?: (outcome: string, durationMs: number) => void;
}

/** Of so many of the best hosts one is taken that nobody else is about to fill. */
const CANDIDATES = 16;
/**
 * By how many such capsules a host may be fuller than the best one and still be taken because that one is being filled:
 * otherwise whichever host is quickest to be filled would get most of a burst.
 */
const UNEVENNESS = 2;
/** How often hosts are looked for that fill up in the very moment in which they are taken: each round one of them. */
const ROUNDS = 64;
/** Of these the last rounds take what they get. */
const EVEN_ROUNDS = 48;

/**
 * The host for a capsule: the one with the most left of what would be scarcest there, of those that can have it. Until
 * the transaction ends nobody else fills that host, so that what is inserted in it fits; others take the next best.
 *
 * @param tx a transaction that has not locked a row of team_load: hosts are locked first
 * @throws WrennError `no_hosts_available`, `template_not_found` or `invalid_shape`, whichever is nearest to success
 */
export function placeCapsule(tx: Db, deps: PlacementDeps, needs: Needs): Promise<string> {
  return observed(deps.record ?? (() => undefined), () => place(tx, deps, needs));
}

async function place(tx: Db, deps: PlacementDeps, needs: Needs): Promise<string> {
  for (let round = 0; round < ROUNDS; round++) {
    const candidates = await findCandidates(tx, deps, needs);
    if (candidates.length === 0) break;
    const search = { settings: deps.settings, needs, candidates, isEven: round < EVEN_ROUNDS };
    const free = await orRelease(tx, (inner) => lockBest(inner, search, candidates, sql`SKIP LOCKED`));
    if (free !== undefined) return free;
    // The good ones are being filled by others. One is waited for, and none held meanwhile.
    const [best] = candidates;
    const waited = best && (await orRelease(tx, (inner) => lockBest(inner, search, [best], sql``)));
    if (waited) return waited;
  }
  throw await explainRefusal(tx, deps, needs);
}

/** Ids of the best hosts, the best first. */
async function findCandidates(tx: Db, deps: PlacementDeps, needs: Needs): Promise<string[]> {
  const { isReachable = () => true } = deps;
  const best = await queryCandidates(tx, deps.settings, needs, CANDIDATES);
  const reachable = best.filter(isReachable);
  if (reachable.length > 0 || best.length < CANDIDATES) return reachable;
  const all = await queryCandidates(tx, deps.settings, needs, undefined);
  return all.filter(isReachable).slice(0, CANDIDATES);
}

async function queryCandidates(
  tx: Db,
  settings: PlacementSettings,
  needs: Needs,
  limit: number | undefined,
): Promise<string[]> {
  const conditions = sql.join(Object.values(hostFilters(settings, needs)) as SQL[], sql` AND `);
  const { rows } = await tx.execute<{ id: string }>(sql`
    SELECT h.id FROM hosts h JOIN host_load l ON l.host_id = h.id
      CROSS JOIN LATERAL (SELECT ${roomColumns(settings)}) r
    WHERE ${conditions}
    ORDER BY ${rankOf(settings, needs)} DESC, random()
    ${limit === undefined ? sql`` : sql`LIMIT ${limit}`}`);
  return rows.map(({ id }) => id);
}

/** What hosts are compared by, with so many such capsules more on each. */
function rankOf({ fetchPenalty }: PlacementSettings, needs: Needs, capsules = 1): SQL {
  return sql`(${scoreOf(needs, capsules)} - (CASE WHEN ${isHere(needs)} THEN 0 ELSE ${fetchPenalty}::float8 END))`;
}

/**
 * Lets go of every row that was locked where nothing was found: PostgreSQL keeps rows locked that turned out to be full,
 * and two that each hold such a one and wait for the other's would never end.
 */
async function orRelease<T>(tx: Db, find: (inner: Db) => Promise<T | undefined>): Promise<T | undefined> {
  try {
    return await tx.transaction(async (inner) => {
      const found = await find(inner);
      if (found === undefined) throw new NothingFoundError();
      return found;
    });
  } catch (error) {
    if (error instanceof NothingFoundError) return undefined;
    throw error;
  }
}

class NothingFoundError extends Error {
  override readonly name = 'NothingFoundError';
}

interface Search {
  readonly settings: PlacementSettings;
  readonly needs: Needs;
  /** What the best one is looked for among. */
  readonly candidates: readonly string[];
  /** Whether hosts are refused that are much fuller than the best one. */
  readonly isEven: boolean;
}

/** Locks the best of some candidates, if it still has room and is not much fuller than the best of all of them. */
async function lockBest(
  tx: Db,
  { settings, needs, candidates, isEven }: Search,
  ids: readonly string[],
  whenLocked: SQL,
): Promise<string | undefined> {
  const hosts = sql`host_load l JOIN hosts h ON h.id = l.host_id CROSS JOIN LATERAL (SELECT ${roomColumns(settings)}) r`;
  const room = hasRoom(roomFor(needs));
  const isGoodEnough = isEven
    ? sql`${rankOf(settings, needs)} >= (SELECT max(${rankOf(settings, needs, 1 + UNEVENNESS)}) FROM ${hosts}
        WHERE l.host_id = ANY (${listOf(candidates)}) AND ${room})`
    : sql`true`;
  // Of a row that somebody changed meanwhile the conditions are looked at again, with what is there now.
  const { rows } = await tx.execute<{ host_id: string }>(sql`
    SELECT l.host_id FROM ${hosts}
    WHERE l.host_id = ANY (${listOf(ids)}) AND ${room} AND ${isGoodEnough}
    ORDER BY ${rankOf(settings, needs)} DESC, array_position(${listOf(ids)}, l.host_id)
    LIMIT 1
    FOR UPDATE OF l ${whenLocked}`);
  return rows[0]?.host_id;
}

function listOf(ids: readonly string[]): SQL {
  return sql`${sql.param([...ids])}::text[]`;
}

/**
 * Makes sure that a host, and no other, has room for more of a capsule that is there: a resume, or children. Cordoned
 * hosts take these.
 *
 * @param room beyond what the capsule counts already
 * @throws WrennError `no_hosts_available`
 */
export async function reserveOn(tx: Db, deps: PlacementDeps, hostId: string, room: Room): Promise<void> {
  const { rows } = await tx.execute(sql`
    SELECT 1 FROM host_load l JOIN hosts h ON h.id = l.host_id
      CROSS JOIN LATERAL (SELECT ${roomColumns(deps.settings)}) r
    WHERE l.host_id = ${hostId} AND ${hasRoom(room)}
    FOR UPDATE OF l`);
  if (rows.length > 0) return;
  throw await explainFullHost(tx, deps, hostId, room);
}
