import type { Logger } from 'pino';
import type { Channel } from '../database/channel-schema.ts';
import type { Db } from '../database/database.ts';
import type { NewMail } from '../mail/mail.ts';
import { type Outbound, OutboundError } from '../outbound/outbound.ts';
import type { KeyRing } from '../secrets/key-ring.ts';
import { openConfig, parseConfig } from './config-secrets.ts';
import { wordsFor } from './event-words.ts';
import { judgeAnswer, type Outcome } from './outcome.ts';
import { type Message, writeRequest } from './providers.ts';

export interface AttemptDeps {
  readonly outbound: Outbound;
  readonly keyRing: KeyRing;
  /** Puts a mail into the caller's transaction. */
  readonly sendMail: (tx: Db, mail: NewMail) => Promise<void>;
  readonly log: Logger;
}

/** One try to tell a channel something. */
export interface Attempt {
  readonly startedAt: Date;
  readonly durationMs: number;
  readonly outcome: Outcome;
  /** What is done in the transaction that records it. */
  readonly also?: (tx: Db) => Promise<void>;
}

type Target = Pick<Channel, 'id' | 'name' | 'provider' | 'config'>;

/**
 * Tells a channel once. Never throws for what the channel or its provider does.
 *
 * @throws the signal's reason
 */
export async function attempt(
  deps: AttemptDeps,
  channel: Target,
  message: Message,
  signal: AbortSignal,
): Promise<Attempt> {
  let config: Record<string, string>;
  const startedAt = new Date();
  try {
    config = openConfig(deps.keyRing, channel.id, channel.config);
  } catch (err) {
    deps.log.error({ err, channel: channel.id }, 'cannot decrypt the secrets of a channel');
    const error = 'its secrets cannot be decrypted: set its config again';
    return { startedAt, durationMs: 0, outcome: { result: 'failed', error } };
  }
  return attemptWith(deps, { ...channel, config }, message, signal);
}

/** The same with a config in plain text. */
export async function attemptWith(
  { outbound, sendMail, log }: AttemptDeps,
  { id, name, provider, config }: Target,
  message: Message,
  signal: AbortSignal,
): Promise<Attempt> {
  const startedAt = new Date();
  const since = performance.now();
  const took = () => Math.round(performance.now() - since);
  if (provider === 'email') {
    const { to } = parseConfig(provider, config);
    const also = (tx: Db) => sendMails(sendMail, tx, to.split(','), name, message);
    return { startedAt, durationMs: took(), outcome: { result: 'taken' }, also };
  }
  try {
    const request = writeRequest(provider, parseConfig(provider, config), message, startedAt);
    const answer = await outbound.send(request, signal);
    return { startedAt, durationMs: took(), outcome: judgeAnswer(answer, new Date()) };
  } catch (error) {
    signal.throwIfAborted();
    log.info({ err: error, channel: id, delivery: message.deliveryId }, 'could not tell a channel');
    const problem = error instanceof OutboundError ? error.message : 'the message could not be made';
    return { startedAt, durationMs: took(), outcome: { result: 'failed', error: problem } };
  }
}

async function sendMails(
  sendMail: AttemptDeps['sendMail'],
  tx: Db,
  addresses: readonly string[],
  channelName: string,
  { event }: Message,
): Promise<void> {
  const { title, facts } = wordsFor(event);
  const paragraphs = [...facts.map(([name, value]) => `${name}: ${value}`), `Sent by the channel ${channelName}.`];
  for (const to of addresses) await sendMail(tx, { to, kind: 'channel', subject: title, paragraphs });
}
