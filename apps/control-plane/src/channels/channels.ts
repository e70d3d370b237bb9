import { randomBytes } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import { isId, newId } from '@wrenn/protocol/ids';
import type { ChannelProvider } from '@wrenn/protocol/rest/channels';
import type { Actor } from '../access/actor.ts';
import { recordAudit } from '../audit/record.ts';
import type { Channel } from '../database/channel-schema.ts';
import { type Db, isUniqueViolation } from '../database/database.ts';
import { OutboundError } from '../outbound/outbound.ts';
import { requireLiveTeam } from '../teams/team-store.ts';
import { type Attempt, type AttemptDeps, attempt, attemptWith } from './attempt.ts';
import {
  CHANNEL_NAME_INDEX,
  countChannels,
  deleteChannelRow,
  disableChannel,
  enableChannel,
  findChannel,
  insertChannel,
  lockChannel,
  newChannelId,
  updateChannel,
} from './channel-store.ts';
import { openConfig, parseConfig, sealConfig } from './config-secrets.ts';
import {
  giveUpAll,
  insertTried,
  type LoggedDelivery,
  listDeliveries,
  newTestEvent,
  renewDelivery,
} from './delivery-store.ts';

/** Each event looks at all of its team's channels. */
const CHANNELS_PER_TEAM = 100;

export interface ChannelsDeps extends AttemptDeps {
  readonly db: Db;
}

/** Who asks, for which team. */
export interface ChannelCaller {
  readonly teamId: string;
  readonly actor: Actor;
}

type Config = Record<string, string>;

/** A channel, with the secret of its webhook where that was just made. */
export interface MadeChannel {
  readonly channel: Channel;
  readonly secret: string | undefined;
}

export interface NewChannelRequest {
  readonly name: string;
  readonly provider: ChannelProvider;
  readonly config: Record<string, unknown>;
  readonly events: readonly string[];
}

/** @throws WrennError `conflict` for a name that the team has already; `invalid_request`; `not_found` for the team */
export async function createChannel(
  { db, keyRing, outbound }: ChannelsDeps,
  { teamId, actor }: ChannelCaller,
  { name, provider, config: given, events }: NewChannelRequest,
): Promise<MadeChannel> {
  const { config, secret } = complete(provider, given);
  checkAddresses(outbound, config);
  const id = newChannelId();
  const channel = await namedOnce(name, () =>
    db.transaction(async (tx) => {
      await requireLiveTeam(tx, teamId, 'no key update');
      if ((await countChannels(tx, teamId)) >= CHANNELS_PER_TEAM) {
        throw new WrennError('invalid_request', { problem: `a team has at most ${CHANNELS_PER_TEAM} channels` });
      }
      const made = await insertChannel(tx, {
        ...{ id, teamId, name, provider, events: [...events], createdBy: actor.id ?? null },
        config: sealConfig(keyRing, id, config),
      });
      await audit(tx, made, actor, 'create', { events });
      return made;
    }),
  );
  return { channel, secret };
}

/** @throws WrennError `not_found` also for a channel of another team */
export async function requireChannel(db: Db, teamId: string, id: string): Promise<Channel> {
  const channel = isId('ch', id) ? await findChannel(db, teamId, id) : undefined;
  if (!channel) throw unknownChannel(id);
  return channel;
}

export interface ChannelChanges {
  readonly name?: string | undefined;
  readonly events?: readonly string[] | undefined;
  readonly enabled?: boolean | undefined;
}

/** @throws WrennError `not_found`, `conflict` */
export async function changeChannel(
  { db }: ChannelsDeps,
  { teamId, actor }: ChannelCaller,
  id: string,
  { name, events, enabled }: ChannelChanges,
): Promise<Channel> {
  return namedOnce(name ?? '', () =>
    db.transaction(async (tx) => {
      await requireLocked(tx, teamId, id);
      if (enabled === true) await enableChannel(tx, id);
      if (enabled === false && (await disableChannel(tx, id, 'switched off by a person'))) await giveUpAll(tx, id);
      const changed = await updateChannel(tx, id, {
        ...(name === undefined ? {} : { name }),
        ...(events === undefined ? {} : { events: [...events] }),
      });
      await audit(tx, changed, actor, 'update', { events, enabled });
      return changed;
    }),
  );
}

/**
 * Replaces what is given of a config; the rest stays. A webhook gets a new secret where none is given.
 *
 * @throws WrennError `not_found`, `invalid_request`
 */
export async function changeConfig(
  { db, keyRing, outbound }: ChannelsDeps,
  { teamId, actor }: ChannelCaller,
  id: string,
  given: Record<string, unknown>,
): Promise<MadeChannel> {
  return db.transaction(async (tx) => {
    const { provider, config: sealed } = await requireLocked(tx, teamId, id);
    const { secret: _secret, ...stored } = storedConfig(keyRing, id, sealed);
    const { config, secret } = complete(provider, { ...stored, ...given });
    checkAddresses(outbound, config);
    const channel = await updateChannel(tx, id, { config: sealConfig(keyRing, id, config) });
    await audit(tx, channel, actor, 'rotate_config', { fields: Object.keys(given) });
    return { channel, secret };
  });
}

/** What is stored; nothing where its key is lost, so that a whole config mends the channel. */
function storedConfig(keyRing: AttemptDeps['keyRing'], id: string, sealed: Config): Config {
  try {
    return openConfig(keyRing, id, sealed);
  } catch {
    return {};
  }
}

/** @throws WrennError `not_found` */
export async function deleteChannel({ db }: ChannelsDeps, { teamId, actor }: ChannelCaller, id: string): Promise<void> {
  await db.transaction(async (tx) => {
    const channel = await requireLocked(tx, teamId, id);
    await deleteChannelRow(tx, id);
    await audit(tx, channel, actor, 'delete');
  });
}

/** Sends a test to what may become a channel. @throws WrennError `delivery_failed`, `invalid_request` */
export async function testConfig(
  deps: ChannelsDeps,
  { teamId, actor }: ChannelCaller,
  { provider, config: given }: Pick<NewChannelRequest, 'provider' | 'config'>,
  signal: AbortSignal,
): Promise<void> {
  const { config } = complete(provider, given);
  checkAddresses(deps.outbound, config);
  const target = { id: newChannelId(), name: 'test', provider, config };
  const message = { event: newTestEvent({ id: target.id, teamId }, actor), deliveryId: newId('dlv') };
  const made = await attemptWith(deps, target, message, signal);
  await deps.db.transaction(async (tx) => made.also?.(tx));
  throwUnlessTaken(made);
}

/** Sends a test to a channel, and keeps it among its deliveries. @throws WrennError `not_found`, `delivery_failed` */
export async function testChannel(
  deps: ChannelsDeps,
  { teamId, actor }: ChannelCaller,
  id: string,
  signal: AbortSignal,
): Promise<void> {
  const { db } = deps;
  const channel = await requireChannel(db, teamId, id);
  const message = { event: newTestEvent(channel, actor), deliveryId: newId('dlv') };
  const made = await attempt(deps, channel, message, signal);
  const { outcome, startedAt, durationMs } = made;
  const error = outcome.result === 'taken' ? undefined : outcome.error;
  await db.transaction(async (tx) => {
    await requireLocked(tx, teamId, id);
    await made.also?.(tx);
    await insertTried(tx, id, message, { startedAt, durationMs, statusCode: outcome.statusCode, error });
  });
  throwUnlessTaken(made);
}

/** Begins a delivery anew. @throws WrennError `not_found`; `invalid_request` when the channel is disabled */
export async function redeliver(
  { db }: ChannelsDeps,
  { teamId, actor }: ChannelCaller,
  id: string,
  deliveryId: string,
): Promise<LoggedDelivery> {
  return await db.transaction(async (tx) => {
    const channel = await requireLocked(tx, teamId, id);
    if (channel.disabledAt) throw new WrennError('invalid_request', { problem: 'the channel is disabled' });
    if (!(await renewDelivery(tx, id, deliveryId))) throw unknownDelivery(deliveryId);
    await audit(tx, channel, actor, 'redeliver', { delivery: deliveryId });
    const [logged] = await listDeliveries(tx, id, { limit: 1, id: deliveryId });
    if (!logged) throw unknownDelivery(deliveryId);
    return logged;
  });
}

function unknownDelivery(id: string): WrennError {
  return new WrennError('not_found', { what: `The delivery ${id}` });
}

function unknownChannel(id: string): WrennError {
  return new WrennError('not_found', { what: `The channel ${id}` });
}

async function requireLocked(tx: Db, teamId: string, id: string): Promise<Channel> {
  const channel = isId('ch', id) ? await lockChannel(tx, teamId, id) : undefined;
  if (!channel) throw unknownChannel(id);
  return channel;
}

/** What is given, checked, with a new secret for a webhook without one. */
function complete(
  provider: ChannelProvider,
  given: Record<string, unknown>,
): { config: Config; secret: string | undefined } {
  const parsed: [string, string | undefined][] = Object.entries(parseConfig(provider, given));
  const config: Config = Object.fromEntries(
    parsed.flatMap(([field, value]) => (value === undefined ? [] : [[field, value]])),
  );
  if (provider !== 'webhook' || config.secret !== undefined) return { config, secret: undefined };
  const secret = randomBytes(32).toString('hex');
  return { config: { ...config, secret }, secret };
}

/** What a name stands for is judged at each request; what can be said at once, is. */
function checkAddresses(outbound: AttemptDeps['outbound'], config: Config): void {
  for (const [field, value] of Object.entries(config)) {
    if (!field.endsWith('url')) continue;
    try {
      outbound.checkUrl(value);
    } catch (error) {
      if (!(error instanceof OutboundError)) throw error;
      throw new WrennError('invalid_request', { problem: `config.${field}: ${error.message}` });
    }
  }
}

async function namedOnce<T>(name: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (error) {
    if (isUniqueViolation(error, CHANNEL_NAME_INDEX)) throw new WrennError('conflict', { what: `A channel ${name}` });
    throw error;
  }
}

function throwUnlessTaken({ outcome }: Attempt): void {
  if (outcome.result !== 'taken') throw new WrennError('delivery_failed', { problem: outcome.error });
}

/** @param metadata never what is in a config */
async function audit(
  tx: Db,
  { id, teamId, name, provider }: Channel,
  actor: Actor,
  action: string,
  metadata: Record<string, unknown> = {},
): Promise<void> {
  await recordAudit(tx, {
    ...{ teamId, actor, resourceType: 'channel', resourceId: id, action, scope: 'team', status: 'success' },
    metadata: { name, provider, ...metadata },
  });
}
