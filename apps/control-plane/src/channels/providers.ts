import { createHmac } from 'node:crypto';
import type { ChannelConfig, ChannelProvider } from '@wrenn/protocol/rest/channels';
import type { EventRow } from '../database/channel-schema.ts';
import type { OutboundRequest } from '../outbound/outbound.ts';
import { type EventWords, wordsFor } from './event-words.ts';

/** What is to be told, and under which id. */
export interface Message {
  /** The same in each attempt. */
  readonly deliveryId: string;
  readonly event: EventRow;
}

type HttpProvider = Exclude<ChannelProvider, 'email'>;
type Writers = {
  readonly [P in HttpProvider]: (config: ChannelConfig<P>, message: Message, now: Date) => OutboundRequest;
};

const TELEGRAM_URL = 'https://api.telegram.org';
const JSON_TYPE = { 'content-type': 'application/json' };

/** How each provider's documentation says that it is told something. */
const WRITERS: Writers = {
  webhook: ({ url, secret = '' }, message, now) => {
    const body = JSON.stringify(webhookBody(message));
    const timestamp = String(Math.floor(now.getTime() / 1000));
    return {
      method: 'POST',
      url,
      headers: {
        ...JSON_TYPE,
        'x-wrenn-signature': `sha256=${createHmac('sha256', secret).update(`${timestamp}.${body}`).digest('hex')}`,
        'x-wrenn-delivery': message.deliveryId,
        'x-wrenn-timestamp': timestamp,
      },
      body,
    };
  },
  // https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks: &, < and > begin its own signs.
  slack: ({ webhook_url }, { event }) => {
    const { title, facts } = escaped(wordsFor(event), (text) =>
      text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;'),
    );
    return post(webhook_url, { text: [`*${title}*`, ...lines(facts)].join('\n') });
  },
  // https://discord.com/developers/docs/resources/webhook#execute-webhook: 2000 characters, and nobody is pinged.
  discord: ({ webhook_url }, { event }) => {
    const { title, facts } = wordsFor(event);
    const content = cut([`**${title}**`, ...lines(facts)].join('\n'), 2000);
    return post(webhook_url, { content, allowed_mentions: { parse: [] } });
  },
  // https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
  teams: ({ webhook_url }, { event }) => {
    const { title, facts } = wordsFor(event);
    const card = {
      $schema: 'http://adaptivecards.io/schemas/adaptive-card.json',
      type: 'AdaptiveCard',
      version: '1.4',
      body: [
        { type: 'TextBlock', text: title, weight: 'Bolder', wrap: true },
        { type: 'FactSet', facts: facts.map(([name, value]) => ({ title: name, value })) },
      ],
    };
    const attachment = { contentType: 'application/vnd.microsoft.card.adaptive', contentUrl: null, content: card };
    return post(webhook_url, { type: 'message', attachments: [attachment] });
  },
  // https://developers.google.com/workspace/chat/quickstart/webhooks: <users/all> would call everybody.
  googlechat: ({ webhook_url }, { event }) => {
    const { title, facts } = escaped(wordsFor(event), (text) => text.replaceAll('<', '‹').replaceAll('>', '›'));
    return post(webhook_url, { text: cut([`*${title}*`, ...lines(facts)].join('\n'), 4000) });
  },
  // https://core.telegram.org/bots/api#sendmessage: 4096 characters, plain because no parse_mode is given.
  telegram: ({ bot_token, chat_id, api_url = TELEGRAM_URL }, { event }) => {
    const text = cut(plain(wordsFor(event)), 4096);
    const url = `${api_url.replace(/\/+$/, '')}/bot${bot_token}/sendMessage`;
    return post(url, { chat_id, text, link_preview_options: { is_disabled: true } });
  },
  // https://spec.matrix.org/latest/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid: the id makes a
  // repeated attempt the same message.
  matrix: ({ homeserver_url, access_token, room_id }, { deliveryId, event }) => ({
    method: 'PUT',
    url: `${homeserver_url.replace(/\/+$/, '')}/_matrix/client/v3/rooms/${encodeURIComponent(room_id)}/send/m.room.message/${encodeURIComponent(deliveryId)}`,
    headers: { ...JSON_TYPE, authorization: `Bearer ${access_token}` },
    body: JSON.stringify({ msgtype: 'm.notice', body: plain(wordsFor(event)) }),
  }),
};

/** The request that tells a provider. @param config as `parseConfig` gave it for the same provider */
export function writeRequest<P extends HttpProvider>(
  provider: P,
  config: ChannelConfig<P>,
  message: Message,
  now: Date,
): OutboundRequest {
  return WRITERS[provider](config, message, now);
}

/** What a webhook is sent: the same bytes in each attempt. */
function webhookBody({ deliveryId, event }: Message) {
  return {
    event: event.type,
    timestamp: event.createdAt.toISOString(),
    team_id: event.teamId,
    actor: { type: event.actorType, id: event.actorId, name: event.actorName },
    resource: { id: event.resourceId, type: event.resourceType },
    data: event.data,
    event_id: event.id,
    delivery_id: deliveryId,
  };
}

function post(url: string, body: unknown): OutboundRequest {
  return { method: 'POST', url, headers: JSON_TYPE, body: JSON.stringify(body) };
}

function lines(facts: EventWords['facts']): string[] {
  return facts.map(([name, value]) => `${name}: ${value}`);
}

function plain({ title, facts }: EventWords): string {
  return [title, ...lines(facts)].join('\n');
}

function escaped({ title, facts }: EventWords, write: (text: string) => string): EventWords {
  return { title: write(title), facts: facts.map(([name, value]) => [write(name), write(value)] as const) };
}

function cut(text: string, limit: number): string {
  return text.length <= limit ? text : `${text.slice(0, limit - 1).toWellFormed()}…`;
}
