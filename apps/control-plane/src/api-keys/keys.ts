import { WrennError } from '@wrenn/protocol/errors';
import { newId } from '@wrenn/protocol/ids';
import type { ApiKeyBody, createApiKeyRequestSchema } from '@wrenn/protocol/rest/api-keys';
import type { ArrayQuery } from '@wrenn/protocol/rest/paging';
import type { z } from 'zod';
import type { Actor } from '../access/actor.ts';
import { authorize, isAllowed } from '../access/authorize.ts';
import { requireAllowed } from '../access/in-team.ts';
import { revokeConnections } from '../access/open-connections.ts';
import type { SignedInUser } from '../access/principal.ts';
import { recordAudit } from '../audit/record.ts';
import type { Db } from '../database/database.ts';
import type { ApiKey } from '../database/people-schema.ts';
import { publishEvent } from '../events/publish.ts';
import type { Page } from '../http/cursor.ts';
import { requireActiveUser } from '../identity/user-store.ts';
import { requireLiveTeam } from '../teams/team-store.ts';
import {
  findKey,
  insertKey,
  type KeysInSight,
  type KeyWithCreator,
  listKeys,
  renameKey,
  revokeKeyRow,
} from './key-store.ts';
import { makeKey } from './new-key.ts';

const DAY_MS = 24 * 60 * 60 * 1000;

/** Whoever manages keys: a person, in the team that their token is for. */
export interface KeyKeeper {
  readonly user: SignedInUser;
  readonly teamId: string;
  readonly actor: Actor;
}

/** What a key is made with. */
export type KeyRequest = z.output<typeof createApiKeyRequestSchema>;

/** Keys of a person's own, and for admins and the owner those of everybody. */
export async function listVisibleKeys(db: Db, keeper: KeyKeeper, query: ArrayQuery): Promise<Page<ApiKeyBody>> {
  const { rows, next } = await listKeys(db, sightOf(keeper), query);
  return { rows: rows.map((found) => toKeyBody(found)), next };
}

/** @throws WrennError `not_found` */
export async function getKey(db: Db, keeper: KeyKeeper, id: string): Promise<ApiKeyBody> {
  const found = await findKey(db, sightOf(keeper), id);
  if (!found) throw notFound(id);
  return toKeyBody(found);
}

/**
 * Makes a key. Its answer alone tells it.
 *
 * @throws WrennError `insufficient_role` for a key of the team by who may not manage those; `account_deactivated`, and
 *   `not_found` when the team is deleted or its maker no member any more
 */
export async function createKey(db: Db, keeper: KeyKeeper, request: KeyRequest): Promise<ApiKeyBody> {
  const { user, teamId, actor } = keeper;
  const owner = request.owner ?? (isAllowed(user, 'key.manage') ? 'team' : 'user');
  if (owner === 'team') authorize(user, 'key.manage');
  const { key, kept } = makeKey();
  const { scopes, expires_in_days: days } = request;
  return db.transaction(async (tx) => {
    // The end of the account or of the membership comes before, or finds the key and revokes it.
    await requireActiveUser(tx, user.id);
    await requireLiveTeam(tx, teamId);
    await requireAllowed(tx, user.id, teamId, owner === 'team' ? 'key.manage' : 'key.own');
    const made = await insertKey(tx, {
      ...kept,
      id: newId('key'),
      teamId,
      name: request.name,
      userId: owner === 'user' ? user.id : null,
      createdBy: user.id,
      scopes: scopes && [...new Set(scopes)],
      expiresAt: days === null ? null : new Date(Date.now() + days * DAY_MS),
    });
    await recordAudit(tx, { ...entryOf(made, actor), action: 'create', metadata: factsOf(made) });
    await publishEvent(tx, { ...eventOf(made, actor), type: 'api_key.created' });
    return { ...toKeyBody({ key: made, creatorEmail: user.email }), key };
  });
}

/** @throws WrennError `not_found` */
export async function updateKey(db: Db, keeper: KeyKeeper, id: string, name: string): Promise<ApiKeyBody> {
  const sight = sightOf(keeper);
  return db.transaction(async (tx) => {
    if (!(await renameKey(tx, sight, id, name))) throw notFound(id);
    const found = await findKey(tx, sight, id);
    if (!found) throw notFound(id);
    await recordAudit(tx, { ...entryOf(found.key, keeper.actor), action: 'update', metadata: { name } });
    return toKeyBody(found);
  });
}

/**
 * Takes a key back: its next request is refused.
 *
 * @throws WrennError `not_found`, also when it was revoked before
 */
export async function revokeKey(db: Db, keeper: KeyKeeper, id: string): Promise<void> {
  await db.transaction(async (tx) => {
    const revoked = await revokeKeyRow(tx, sightOf(keeper), id);
    if (!revoked) throw notFound(id);
    await recordAudit(tx, { ...entryOf(revoked, keeper.actor), action: 'revoke', metadata: factsOf(revoked) });
    await publishEvent(tx, { ...eventOf(revoked, keeper.actor), type: 'api_key.revoked' });
    await revokeConnections(tx, { keyId: id });
  });
}

function sightOf({ user, teamId }: KeyKeeper): KeysInSight {
  return { teamId, userId: isAllowed(user, 'key.manage') ? undefined : user.id };
}

function notFound(id: string): WrennError {
  return new WrennError('not_found', { what: `The API key ${id}` });
}

function entryOf({ id, teamId }: ApiKey, actor: Actor) {
  return { teamId, actor, resourceType: 'api_key', resourceId: id, scope: 'team', status: 'success' } as const;
}

function eventOf(key: ApiKey, actor: Actor) {
  return { teamId: key.teamId, actor, resource: { type: 'api_key', id: key.id }, data: factsOf(key) };
}

function factsOf({ name, keyPrefix, userId, scopes }: ApiKey): Record<string, unknown> {
  return { name, key_prefix: keyPrefix, owner: userId === null ? 'team' : 'user', scopes };
}

function toKeyBody({ key, creatorEmail }: KeyWithCreator): ApiKeyBody {
  return {
    id: key.id,
    team_id: key.teamId,
    name: key.name,
    key_prefix: key.keyPrefix,
    owner: key.userId === null ? 'team' : 'user',
    user_id: key.userId,
    scopes: key.scopes,
    created_by: key.createdBy,
    creator_email: creatorEmail,
    created_at: key.createdAt.toISOString(),
    expires_at: key.expiresAt?.toISOString() ?? null,
    last_used: key.lastUsedAt?.toISOString() ?? null,
  };
}
