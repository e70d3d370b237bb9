import { WrennError } from '@wrenn/protocol/errors';
import pino from 'pino';
import { beforeEach, expect, it, vi } from 'vitest';
import type { ControlPlaneClient } from './control-plane-client.ts';
import { Heartbeats } from './heartbeat-sender.ts';
import type { HeartbeatFacts } from './host-facts.ts';
import type { Renewal } from './renewal.ts';

/** How long was waited after each heartbeat. */
const waitsMs: number[] = vi.hoisted(() => []);
vi.mock('node:timers/promises', () => ({
  setTimeout: async (ms: number) => void waitsMs.push(ms),
}));

beforeEach(() => {
  waitsMs.length = 0;
  vi.spyOn(performance, 'now').mockReturnValue(0);
});

/** Lets it send so many heartbeats, each of which is answered in this way. */
async function send(count: number, answer: () => void): Promise<void> {
  const stop = new AbortController();
  let sent = 0;
  const heartbeat = async () => {
    sent += 1;
    if (sent > count) stop.abort();
    answer();
    return { renew: false, control_planes: [], clock_offset_ms: 0 };
  };
  const renewal = { current: { host_id: 'host-1', token: 'token' }, isDue: false };
  await new Heartbeats({
    client: { heartbeat, baseUrl: 'http://127.0.0.1' } as unknown as ControlPlaneClient,
    renewal: renewal as unknown as Renewal,
    facts: async () => ({}) as HeartbeatFacts,
    takeSamples: () => ({ samples: [], acknowledge: () => undefined }),
    log: pino({ level: 'silent' }),
    signal: stop.signal,
  }).run();
  waitsMs.splice(count);
}

it('waits half a minute from one heartbeat to the next, or up to a tenth less', async () => {
  await send(50, () => undefined);
  expect(waitsMs).toHaveLength(50);
  expect(Math.min(...waitsMs)).toBeGreaterThanOrEqual(27_000);
  expect(Math.max(...waitsMs)).toBeLessThanOrEqual(30_000);
});

it('sends the next one sooner where one failed, and seldom where they are refused', async () => {
  await send(1, () => {
    throw new Error('the line is cut');
  });
  expect(waitsMs[0]).toBeLessThanOrEqual(1000);
  waitsMs.length = 0;
  await send(1, () => {
    throw new WrennError('host_deleted', { id: 'host-1' });
  });
  expect(waitsMs[0]).toBeGreaterThanOrEqual(270_000);
});
