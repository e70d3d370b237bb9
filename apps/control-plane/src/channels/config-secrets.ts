import { WrennError } from '@wrenn/protocol/errors';
import { CHANNEL_CONFIGS, type ChannelConfig, type ChannelProvider } from '@wrenn/protocol/rest/channels';
import type { KeyRing } from '../secrets/key-ring.ts';

type Fields = Record<string, string>;

/** What a sealed value of a channel is bound to. */
export function configPlace(channelId: string, field: string): string {
  return `channel:${channelId}:${field}`;
}

/** Encrypts each value by itself. */
export function sealConfig(keyRing: KeyRing, channelId: string, config: Fields): Fields {
  return mapFields(config, (value, field) => keyRing.encrypt(value, configPlace(channelId, field)));
}

/** @throws Error when a key is missing from the ring, or a value was changed or moved */
export function openConfig(keyRing: KeyRing, channelId: string, sealed: Fields): Fields {
  return mapFields(sealed, (value, field) => keyRing.decrypt(value, configPlace(channelId, field)));
}

/** @throws WrennError `invalid_request` that names every field that is wrong */
export function parseConfig<P extends ChannelProvider>(provider: P, config: unknown): ChannelConfig<P> {
  const parsed = CHANNEL_CONFIGS[provider].safeParse(config);
  if (parsed.success) return parsed.data as ChannelConfig<P>;
  const problems = parsed.error.issues.map(({ path, message }) => `${['config', ...path].join('.')}: ${message}`);
  throw new WrennError('invalid_request', { problem: problems.join('; ') });
}

/** Fields that are no secret; a URL among the others is shown as its origin. */
const OPEN_FIELDS: ReadonlySet<string> = new Set(['chat_id', 'room_id', 'to']);
const MASK = '••••';

/** What may be shown of a config. Of one whose key is lost, that is nothing. */
export function maskConfig(keyRing: KeyRing, channelId: string, sealed: Fields): Fields {
  return mapFields(sealed, (value, field) => {
    if (!OPEN_FIELDS.has(field) && !field.endsWith('url')) return MASK;
    const text = openOrUndefined(keyRing, value, configPlace(channelId, field));
    if (text === undefined || OPEN_FIELDS.has(field)) return text ?? MASK;
    return `${URL.parse(text)?.origin ?? ''}/${MASK}`;
  });
}

function openOrUndefined(keyRing: KeyRing, sealed: string, place: string): string | undefined {
  try {
    return keyRing.decrypt(sealed, place);
  } catch {
    return undefined;
  }
}

function mapFields(fields: Fields, change: (value: string, field: string) => string): Fields {
  return Object.fromEntries(Object.entries(fields).map(([field, value]) => [field, change(value, field)]));
}
