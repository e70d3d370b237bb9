import {
  type ChannelBody,
  channelListSchema,
  channelSchema,
  type DeliveryBody,
  deliveryPageSchema,
  deliverySchema,
} from '@wrenn/protocol/rest/channels';
import type { z } from 'zod';
import { type ApiHttp, post, QUERY_TIMEOUT_MS, query, withTimeout } from './http.ts';

/** What makes a channel. */
export interface NewChannel {
  readonly name: string;
  readonly provider: string;
  readonly config: Readonly<Record<string, string>>;
  readonly events: readonly string[];
}

/** The part of the API that is about channels: where events are told. */
export interface ChannelCalls {
  listChannels(signal: AbortSignal): Promise<ChannelBody[]>;
  createChannel(channel: NewChannel, signal: AbortSignal): Promise<ChannelBody>;
  deleteChannel(id: string, signal: AbortSignal): Promise<void>;
  /** Sends a test through a channel and waits for the answer. */
  testChannel(id: string, signal: AbortSignal): Promise<void>;
  listDeliveries(id: string, limit: number, signal: AbortSignal): Promise<z.output<typeof deliveryPageSchema>>;
  redeliver(id: string, deliveryId: string, signal: AbortSignal): Promise<DeliveryBody>;
}

export function channelCalls({ json, send }: ApiHttp): ChannelCalls {
  const path = (id: string, ...rest: string[]) => ['/v1/channels', ...[id, ...rest].map(encodeURIComponent)].join('/');
  const act = async (to: string, method: string, signal: AbortSignal) => {
    await send(to, { method }, withTimeout(signal, QUERY_TIMEOUT_MS));
  };
  return {
    listChannels: (signal) => json(channelListSchema, '/v1/channels', {}, signal),
    createChannel: (channel, signal) => json(channelSchema, '/v1/channels', post(channel), signal),
    deleteChannel: (id, signal) => act(path(id), 'DELETE', signal),
    testChannel: (id, signal) => act(path(id, 'test'), 'POST', signal),
    listDeliveries: (id, limit, signal) =>
      json(deliveryPageSchema, `${path(id, 'deliveries')}${query({ limit: String(limit) })}`, {}, signal),
    redeliver: (id, deliveryId, signal) =>
      json(deliverySchema, path(id, 'deliveries', deliveryId, 'redeliver'), { method: 'POST' }, signal),
  };
}
