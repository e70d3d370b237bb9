import { randomBytes } from 'node:crypto';

const PREFIXES = [
  'cl',
  'usr',
  'team',
  'key',
  'host',
  'tpl',
  'bld',
  'snap',
  'ch',
  'log',
  'op',
  'req',
  'ses',
  'inv',
  'pk',
  'evt',
  'dlv',
  'mail',
  'htok',
  'hrt',
] as const;

export type IdPrefix = (typeof PREFIXES)[number];
export type Id<P extends IdPrefix> = `${P}-${string}`;

const BODY_LENGTH = 25;
const BODY = /^[0-9a-z]{25}$/;

/** A new id: the prefix and 25 base-36 characters of 128 random bits. */
export function newId<P extends IdPrefix>(prefix: P): Id<P> {
  const bits = BigInt(`0x${randomBytes(16).toString('hex')}`);
  return `${prefix}-${bits.toString(36).padStart(BODY_LENGTH, '0')}`;
}

/** Whether a text has the form of an id with that prefix. */
export function isId<P extends IdPrefix>(prefix: P, text: string): text is Id<P> {
  return text.startsWith(`${prefix}-`) && BODY.test(text.slice(prefix.length + 1));
}

const KEY_BODY = /^(?:wrn|e2b)_([0-9a-f]{40})$/;

/** A new API key, `wrn_` and 40 hex characters. */
export function newApiKey(): string {
  return `wrn_${randomBytes(20).toString('hex')}`;
}

/** The 40 hex characters of a key in either spelling (`wrn_` or `e2b_`); undefined when it has neither form. */
export function apiKeyBody(key: string): string | undefined {
  return KEY_BODY.exec(key)?.[1];
}
