import type { ChannelBody, DeliveryBody, EVENT_TYPES } from '@wrenn/protocol/rest/channels';
import type { Channel } from '../database/channel-schema.ts';
import type { KeyRing } from '../secrets/key-ring.ts';
import { maskConfig } from './config-secrets.ts';
import type { LoggedDelivery } from './delivery-store.ts';

/** A channel as the API shows it. @param secret of a webhook, where it was just made */
export function toChannelBody(keyRing: KeyRing, channel: Channel, secret?: string): ChannelBody {
  return {
    id: channel.id,
    team_id: channel.teamId,
    name: channel.name,
    provider: channel.provider,
    config: maskConfig(keyRing, channel.id, channel.config),
    events: channel.events as (typeof EVENT_TYPES)[number][],
    status: channel.disabledAt ? 'disabled' : 'active',
    disabled_reason: channel.disabledReason,
    created_at: channel.createdAt.toISOString(),
    updated_at: channel.updatedAt.toISOString(),
    ...(secret === undefined ? {} : { secret }),
  };
}

export function toDeliveryBody({ delivery, event, attempts }: LoggedDelivery): DeliveryBody {
  return {
    id: delivery.id,
    channel_id: delivery.channelId,
    event: {
      id: event.id,
      type: event.type,
      timestamp: event.createdAt.toISOString(),
      actor: { type: event.actorType, id: event.actorId, name: event.actorName },
      resource: { type: event.resourceType, id: event.resourceId },
      data: event.data,
    },
    status: delivery.status,
    next_attempt_at: delivery.nextAttemptAt?.toISOString() ?? null,
    created_at: delivery.createdAt.toISOString(),
    finished_at: delivery.finishedAt?.toISOString() ?? null,
    attempts: attempts.map((attempt) => ({
      number: attempt.number,
      started_at: attempt.startedAt.toISOString(),
      duration_ms: attempt.durationMs,
      status_code: attempt.statusCode,
      error: attempt.error,
    })),
  };
}
