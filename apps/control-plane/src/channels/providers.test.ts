import { randomBytes } from 'node:crypto';
import { newId } from '@wrenn/protocol/ids';
import { CHANNEL_CONFIGS, type ChannelProvider, EVENT_TYPES } from '@wrenn/protocol/rest/channels';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { EventRow } from '../database/channel-schema.ts';
import { Outbound } from '../outbound/outbound.ts';
import { KeyRing } from '../secrets/key-ring.ts';
import { HttpReceiver, type ReceivedRequest } from '../testing/http-receiver.ts';
import { attempt } from './attempt.ts';
import { sealConfig } from './config-secrets.ts';
import { wordsFor } from './event-words.ts';

/** What tries to break out of every provider's markup. */
const NASTY = '<!channel> <users/all> @everyone & *x* `y` </script> \u{1f600}';
const DELIVERY = newId('dlv');

/**
 * Each endpoint as its provider documents it: what it takes, and what it answers. The text that a person would read is
 * taken out of what came.
 */
interface Double {
  readonly config: (url: string) => Record<string, string>;
  readonly method: 'POST' | 'PUT';
  readonly path: string;
  readonly headers?: Record<string, string>;
  readonly body: z.ZodType<unknown>;
  readonly text: (body: never) => string;
  readonly ok: readonly [status: number, body: string];
  /** How it says that it wants silence for 3 s. */
  readonly busy: readonly [headers: Record<string, string>, body: object];
}

const chatId = '-1001234567890';
const DOUBLES: Partial<Record<ChannelProvider, Double>> = {
  slack: {
    config: (url) => ({ webhook_url: `${url}/services/T0/B0/x` }),
    ...{ method: 'POST', path: '/services/T0/B0/x' },
    // Slack refuses what it does not know, and reads <…> as its own signs.
    body: z.strictObject({
      text: z
        .string()
        .min(1)
        .max(40_000)
        .regex(/^[^<>]*$/),
    }),
    text: ({ text }: { text: string }) => text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&'),
    ok: [200, 'ok'],
    busy: [{ 'retry-after': '3' }, { ok: false, error: 'ratelimited' }],
  },
  discord: {
    config: (url) => ({ webhook_url: `${url}/api/webhooks/1/x` }),
    ...{ method: 'POST', path: '/api/webhooks/1/x' },
    body: z.strictObject({
      content: z.string().min(1).max(2000),
      allowed_mentions: z.strictObject({ parse: z.array(z.never()) }),
    }),
    text: ({ content }: { content: string }) => content,
    ok: [204, ''],
    busy: [{}, { message: 'You are being rate limited.', retry_after: 3, global: false }],
  },
  teams: {
    config: (url) => ({ webhook_url: `${url}/workflows/1` }),
    ...{ method: 'POST', path: '/workflows/1' },
    body: z.strictObject({
      type: z.literal('message'),
      attachments: z.tuple([
        z.strictObject({
          contentType: z.literal('application/vnd.microsoft.card.adaptive'),
          contentUrl: z.null(),
          content: z.strictObject({
            $schema: z.literal('http://adaptivecards.io/schemas/adaptive-card.json'),
            type: z.literal('AdaptiveCard'),
            version: z.enum(['1.0', '1.1', '1.2', '1.3', '1.4']),
            body: z.array(
              z.discriminatedUnion('type', [
                z.strictObject({
                  type: z.literal('TextBlock'),
                  text: z.string().min(1),
                  weight: z.enum(['Default', 'Lighter', 'Bolder']).optional(),
                  wrap: z.boolean().optional(),
                }),
                z.strictObject({
                  type: z.literal('FactSet'),
                  facts: z.array(z.strictObject({ title: z.string(), value: z.string() })).min(1),
                }),
              ]),
            ),
          }),
        }),
      ]),
    }),
    text: (body: unknown) => JSON.stringify(body).replaceAll('\\"', '"'),
    ok: [202, ''],
    busy: [{ 'retry-after': '3' }, {}],
  },
  googlechat: {
    config: (url) => ({ webhook_url: `${url}/v1/spaces/A/messages?key=k&token=t` }),
    ...{ method: 'POST', path: '/v1/spaces/A/messages?key=k&token=t' },
    body: z.strictObject({
      text: z
        .string()
        .min(1)
        .max(4096)
        .regex(/^[^<>]*$/),
    }),
    text: ({ text }: { text: string }) => text.replaceAll('‹', '<').replaceAll('›', '>'),
    ok: [200, '{"name":"spaces/A/messages/1"}'],
    busy: [{ 'retry-after': '3' }, { error: { code: 429, status: 'RESOURCE_EXHAUSTED' } }],
  },
  telegram: {
    config: (url) => ({ api_url: url, bot_token: '123456:ABC-def_1', chat_id: chatId }),
    ...{ method: 'POST', path: '/bot123456:ABC-def_1/sendMessage' },
    body: z.strictObject({
      chat_id: z.literal(chatId),
      text: z.string().min(1).max(4096),
      link_preview_options: z.strictObject({ is_disabled: z.literal(true) }),
    }),
    text: ({ text }: { text: string }) => text,
    ok: [200, '{"ok":true,"result":{"message_id":1}}'],
    busy: [{}, { ok: false, error_code: 429, description: 'Too Many Requests', parameters: { retry_after: 3 } }],
  },
  matrix: {
    config: (url) => ({ homeserver_url: `${url}/`, access_token: 'syt_x', room_id: '!a/b:example.com' }),
    method: 'PUT',
    path: `/_matrix/client/v3/rooms/!a%2Fb%3Aexample.com/send/m.room.message/${DELIVERY}`,
    headers: { authorization: 'Bearer syt_x' },
    body: z.strictObject({ msgtype: z.enum(['m.text', 'm.notice']), body: z.string().min(1) }),
    text: ({ body }: { body: string }) => body,
    ok: [200, '{"event_id":"$1"}'],
    busy: [{}, { errcode: 'M_LIMIT_EXCEEDED', error: 'slow down', retry_after_ms: 3000 }],
  },
};

const keyRing = new KeyRing([randomBytes(32)]);
const event: EventRow = {
  ...{
    id: newId('evt'),
    type: 'capsule.error',
    teamId: 'team-a',
    actorType: 'user',
    actorId: 'usr-a',
    actorName: NASTY,
  },
  ...{ resourceType: 'capsule', resourceId: 'cl-a', data: { reason: NASTY, metadata: { a: 1 }, none: null } },
  createdAt: new Date('2026-01-02T03:04:05.678Z'),
};

let target: HttpReceiver;
beforeEach(async () => {
  target = await HttpReceiver.start();
});
afterEach(() => target[Symbol.asyncDispose]());

async function tell(provider: ChannelProvider, config: Record<string, string>, told = event) {
  expect(CHANNEL_CONFIGS[provider].safeParse(config).success).toBe(true);
  const channel = { id: 'ch-a', name: 'a', provider, config: sealConfig(keyRing, 'ch-a', config) };
  const made = await attempt(
    {
      ...{ keyRing, log: pino({ level: 'silent' }), outbound: new Outbound({ allowedNetworks: ['127.0.0.0/8'] }) },
      sendMail: async () => {
        throw new Error('no mail is to be sent');
      },
    },
    channel,
    { deliveryId: DELIVERY, event: told },
    AbortSignal.timeout(10_000),
  );
  return made.outcome;
}

describe.each(Object.entries(DOUBLES) as [ChannelProvider, Double][])('%s', (provider, double) => {
  it('takes the message as its documentation says, and a person can read all of it', async () => {
    target.respond = (_request, response) => response.writeHead(double.ok[0]).end(double.ok[1]);
    expect(await tell(provider, double.config(target.url))).toEqual({ result: 'taken', statusCode: double.ok[0] });
    const [request] = target.received as [ReceivedRequest];
    expect(request).toMatchObject({ method: double.method, path: double.path });
    expect(request.headers).toMatchObject({ 'content-type': 'application/json', ...double.headers });
    const body: unknown = JSON.parse(request.body);
    expect(double.body.parse(body)).toEqual(body);
    const text = double.text(body as never);
    for (const part of ['Capsule cl-a failed', NASTY, '2026-01-02T03:04:05.678Z', 'capsule.error', '{"a":1}']) {
      expect(text).toContain(part);
    }
    expect(text).not.toContain('none');
  });

  it('takes the longest message', async () => {
    const reason = 'ä'.repeat(500);
    const data = Object.fromEntries(Array.from({ length: 15 }, (_, n) => [`field ${n}`, reason]));
    expect(await tell(provider, double.config(target.url), { ...event, data })).toMatchObject({ result: 'taken' });
    const body: unknown = JSON.parse((await target.request(0)).body);
    expect(double.body.parse(body)).toEqual(body);
  });

  it('is left alone for as long as it asks', async () => {
    const [headers, body] = double.busy;
    target.respond = (_request, response) => response.writeHead(429, headers).end(JSON.stringify(body));
    const outcome = await tell(provider, double.config(target.url));
    expect(outcome).toMatchObject({ result: 'held', statusCode: 429, holdMs: 3000 });
  });
});

it('has a double of every provider that is spoken to by HTTP in a way of its own', () => {
  expect(Object.keys(DOUBLES)).toEqual(
    Object.keys(CHANNEL_CONFIGS).filter((name) => !['webhook', 'email'].includes(name)),
  );
});

it.each([...EVENT_TYPES, 'channel.test'])('has words for %s', (type) => {
  expect(wordsFor({ ...event, type }).title).toMatch(/ /);
});
