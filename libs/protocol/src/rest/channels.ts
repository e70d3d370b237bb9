import { z } from 'zod';
import { pageOf } from './paging.ts';

/** What can happen, by the names that channels subscribe to. */
export const EVENT_TYPES = [
  'capsule.created',
  'capsule.running',
  'capsule.paused',
  'capsule.hibernated',
  'capsule.forked',
  'capsule.missing',
  'capsule.error',
  'capsule.destroyed',
  'template.snapshot.created',
  'template.snapshot.deleted',
  'build.started',
  'build.succeeded',
  'build.failed',
  'host.up',
  'host.down',
  'member.invited',
  'member.added',
  'member.removed',
  'member.role_changed',
  'team.owner_changed',
  'team.deleted',
  'api_key.created',
  'api_key.revoked',
  'budget.warning',
  'budget.exceeded',
] as const;

/** What a channel is told: an event that it subscribes to, or a test. */
export type EventType = (typeof EVENT_TYPES)[number] | 'channel.test';

const URL_LIMIT = 2000;
const httpUrl = z.url({ protocol: /^https?$/, error: 'must be a URL such as https://example.com/hook' }).max(URL_LIMIT);
// Goes into a path or a header: nothing in it may end either.
const token = z
  .string()
  .trim()
  .regex(/^[\x21-\x7e]{1,500}$/, 'must be 1 to 500 printable characters without spaces');
const chatWebhook = z.strictObject({
  webhook_url: httpUrl.meta({ description: 'As the provider shows it. It is a secret.' }),
});

/** What each provider needs to know. */
export const CHANNEL_CONFIGS = {
  webhook: z.strictObject({
    url: httpUrl,
    secret: token.min(16).optional().meta({
      description: 'Signs what is sent. Default: a new one of 64 hex characters, which the answer shows once.',
    }),
  }),
  slack: chatWebhook,
  discord: chatWebhook,
  teams: chatWebhook,
  googlechat: chatWebhook,
  telegram: z.strictObject({
    bot_token: token.regex(/^\d+:[\w-]+$/, 'must be a token such as 123456:ABC-DEF'),
    chat_id: z
      .union([z.string(), z.int().transform(String)])
      .pipe(z.string().regex(/^(-?\d{1,32}|@\w{1,64})$/, 'must be a number, or @ and the name of a channel')),
    api_url: httpUrl
      .optional()
      .meta({ description: 'A Bot API server of your own. Default: https://api.telegram.org' }),
  }),
  matrix: z.strictObject({
    homeserver_url: httpUrl,
    access_token: token,
    room_id: z.string().regex(/^!\S{1,254}$/, 'must be the id of a room, such as !abc:example.com'),
  }),
  email: z.strictObject({
    to: z
      .union([z.string().transform((text) => text.split(',').map((part) => part.trim())), z.array(z.string())])
      .pipe(z.array(z.email().max(320)).min(1).max(10))
      .transform((addresses) => addresses.join(','))
      .meta({ description: '1 to 10 addresses: a list, or with commas between.' }),
  }),
} as const;

export const CHANNEL_PROVIDERS = Object.keys(CHANNEL_CONFIGS) as [ChannelProvider, ...ChannelProvider[]];
export type ChannelProvider = keyof typeof CHANNEL_CONFIGS;
export type ChannelConfig<P extends ChannelProvider> = z.output<(typeof CHANNEL_CONFIGS)[P]>;

const name = z
  .string()
  .trim()
  .toLowerCase()
  .transform((text) => text.replaceAll(/\s+/g, '-'))
  .pipe(
    z
      .string()
      .regex(
        /^[a-z0-9][a-z0-9._-]{0,63}$/,
        'must begin with a letter or digit, then letters, digits, . _ - (64 at most)',
      ),
  )
  .meta({ description: 'Lower-cased, with dashes for spaces. Unique in the team.' });
const events = z
  .array(z.enum(EVENT_TYPES))
  .min(1)
  .transform((list) => [...new Set(list)]);
const givenConfig = z
  .record(z.string().max(64), z.unknown())
  .meta({ description: 'What the provider needs: see the providers in docs/channels.md.' });

const timestamp = z.iso.datetime({ offset: true });

export const channelSchema = z
  .object({
    id: z.string(),
    team_id: z.string(),
    name: z.string(),
    provider: z.enum(CHANNEL_PROVIDERS),
    config: z
      .record(z.string(), z.string())
      .meta({ description: 'Secrets are masked; of a URL only its origin is shown.' }),
    events: z.array(z.enum(EVENT_TYPES)),
    status: z.enum(['active', 'disabled']).meta({ description: 'disabled: it is told nothing until it is enabled.' }),
    disabled_reason: z.string().nullable(),
    created_at: timestamp,
    updated_at: timestamp,
    secret: z.string().optional().meta({ description: 'Of a webhook, only in the answer that made it.' }),
  })
  .meta({ id: 'Channel' });
export type ChannelBody = z.output<typeof channelSchema>;
export const channelListSchema = z.array(channelSchema);

export const channelParamsSchema = z.object({ id: z.string().max(64) });
export const deliveryParamsSchema = z.object({ id: z.string().max(64), delivery: z.string().max(64) });

export const createChannelRequestSchema = z
  .object({ name, provider: z.enum(CHANNEL_PROVIDERS), config: givenConfig, events })
  .meta({ id: 'CreateChannelRequest' });

export const updateChannelRequestSchema = z
  .object({
    name: name.optional(),
    events: events.optional(),
    enabled: z.boolean().optional().meta({ description: 'false: keeps silent; true: told again from now on.' }),
  })
  .refine((body) => Object.keys(body).length > 0, 'name, events or enabled is needed')
  .meta({ id: 'UpdateChannelRequest' });

/** The fields themselves, or below `config`. What is left out stays, but for the secret of a webhook: it becomes a new one. */
export const channelConfigRequestSchema = givenConfig.meta({ id: 'ChannelConfigRequest' });

export const testChannelRequestSchema = z
  .object({ provider: z.enum(CHANNEL_PROVIDERS), config: givenConfig })
  .meta({ id: 'TestChannelRequest' });
export const testChannelResponseSchema = z.object({ status: z.literal('ok') }).meta({ id: 'TestChannelResponse' });

export const DELIVERY_STATUSES = ['pending', 'delivered', 'failed'] as const;

export const deliverySchema = z
  .object({
    id: z.string().meta({ description: 'The same in each attempt; a webhook finds it in X-Wrenn-Delivery.' }),
    channel_id: z.string(),
    event: z.object({
      id: z.string(),
      type: z.string(),
      timestamp,
      actor: z.object({ type: z.string(), id: z.string().nullable(), name: z.string() }),
      resource: z.object({ type: z.string(), id: z.string() }),
      data: z.record(z.string(), z.unknown()),
    }),
    status: z.enum(DELIVERY_STATUSES),
    next_attempt_at: timestamp.nullable(),
    created_at: timestamp,
    finished_at: timestamp.nullable(),
    attempts: z.array(
      z.object({
        number: z.int(),
        started_at: timestamp,
        duration_ms: z.int(),
        status_code: z.int().nullable(),
        error: z.string().nullable().meta({ description: 'Null: it was taken.' }),
      }),
    ),
  })
  .meta({ id: 'ChannelDelivery' });
export type DeliveryBody = z.output<typeof deliverySchema>;
export const deliveryPageSchema = pageOf(deliverySchema).meta({ id: 'ChannelDeliveryPage' });
