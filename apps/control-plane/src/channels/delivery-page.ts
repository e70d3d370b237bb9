import { WrennError } from '@wrenn/protocol/errors';
import type { DeliveryBody } from '@wrenn/protocol/rest/channels';
import type { Db } from '../database/database.ts';
import { toDeliveryBody } from './channel-body.ts';
import { listDeliveries } from './delivery-store.ts';

/** @throws WrennError `invalid_request` for a cursor that no page gave */
export async function deliveryPage(
  db: Db,
  channelId: string,
  { limit, cursor }: { limit: number; cursor?: string | undefined },
): Promise<{ items: DeliveryBody[]; next_cursor: string | null }> {
  const before = cursor === undefined ? undefined : Number(cursor);
  if (cursor !== undefined && !/^\d{1,15}$/.test(cursor)) {
    throw new WrennError('invalid_request', { problem: 'cursor: it is of no page of this list' });
  }
  const found = await listDeliveries(db, channelId, { limit: limit + 1, before });
  const page = found.slice(0, limit);
  const last = page.at(-1);
  const next = found.length > limit && last ? String(last.delivery.seq) : null;
  return { items: page.map(toDeliveryBody), next_cursor: next };
}
