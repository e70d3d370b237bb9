import { afterEach, expect, it } from 'vitest';
import type { Host } from '../hosts/host.ts';
import { type Guest, openGuest } from './guest.ts';

const LIMIT_MS = 100;
/** The connection itself is never made. */
const PATIENCE_MS = 10_000;

/** Its packets are dropped: a connection to it is neither made nor refused. */
const silentHost = { tunnel: () => new Promise<never>(() => undefined) } as unknown as Host;

let guest: Guest | undefined;
afterEach(() => guest?.[Symbol.dispose]());

it.each<[string, (guest: Guest, signal: AbortSignal) => Promise<unknown>]>([
  ['a request', ({ fetch }, signal) => fetch({ method: 'GET', path: '/activity', signal })],
  ['a call', ({ processes }, signal) => processes.list({}, { signal })],
])('%s is given up in time where its host is silent', async (_, ask) => {
  guest = openGuest(silentHost, 'cl-1', 'token');
  const began = performance.now();
  await expect(ask(guest, AbortSignal.timeout(LIMIT_MS))).rejects.toThrow();
  expect(performance.now() - began).toBeLessThan(PATIENCE_MS);
});
