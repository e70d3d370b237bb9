import { WrennError } from '@wrenn/protocol/errors';
import type { Actor } from '../access/actor.ts';
import type { Db } from '../database/database.ts';
import { requireOtherMethod } from '../identity/login-methods.ts';
import { recordOnPasskey } from './passkey-audit.ts';
import { deletePasskey, type Passkey, renamePasskey } from './passkey-store.ts';

/** A passkey of somebody's own. */
export interface OwnPasskey {
  readonly id: string;
  readonly userId: string;
  readonly actor: Actor;
}

/** @throws WrennError `not_found` */
export function changeName(db: Db, { id, userId, actor }: OwnPasskey, name: string): Promise<Passkey> {
  return db.transaction(async (tx) => {
    const passkey = await renamePasskey(tx, userId, id, name);
    if (!passkey) throw noPasskey(id);
    await recordOnPasskey(tx, actor, passkey, 'rename');
    return passkey;
  });
}

/**
 * @param configured providers that can be logged in with
 * @throws WrennError `not_found`, `last_login_method`
 */
export function removePasskey(db: Db, { id, userId, actor }: OwnPasskey, configured: readonly string[]): Promise<void> {
  return db.transaction(async (tx) => {
    const passkey = await deletePasskey(tx, userId, id);
    if (!passkey) throw noPasskey(id);
    await requireOtherMethod(tx, userId, configured, { kind: 'passkey', id });
    await recordOnPasskey(tx, actor, passkey, 'delete');
  });
}

function noPasskey(id: string): WrennError {
  return new WrennError('not_found', { what: `The passkey ${id}` });
}
