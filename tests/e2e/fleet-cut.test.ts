import { setTimeout as delay } from 'node:timers/promises';
import { DebianPostgres, findDebianPostgres } from '@wrenn/control-plane/testing/debian-postgres';
import { RedisServer } from '@wrenn/control-plane/testing/redis-server';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Fleet, type FleetHost } from './support/fleet.ts';
import { FleetCapsules } from './support/fleet-capsules.ts';

const SHORT_CUT_MS = 60_000;
/** After the long cut is seen, it lasts on; `WRENN_TEST_CUT_S` makes it longer in all. */
const LONG_CUT_MS = 1000 * Number(process.env.WRENN_TEST_CUT_S ?? 120);
/**
 * A host counts as heard until the next ping, at most 5 s after the cut, and as missing 90 s after that, when it is next
 * looked for, a second later at most. The rest is for a machine that is busy, and less than those 90 s once more.
 */
const MISSING_AFTER_MS = 150_000;
/** How long a caller waits for the word that a host which has just gone does not answer. */
const REFUSED_AFTER_MS = 40_000;
/** From the moment that the line is there again. */
const BACK_AFTER_MS = 120_000;
const TEST_MS = 900_000 + LONG_CUT_MS;

const stack = new AsyncDisposableStack();
let fleet: Fleet;
let capsules: FleetCapsules;
let hosts: readonly FleetHost[];
/** One of each host. */
let ids: readonly string[];

const since = (ms: number) => performance.now() - ms;
const print = (line: string) => process.stdout.write(`  fleet: ${line}\n`);
const eachLine = (verb: 'cut' | 'mend') => Promise.all(hosts.map(({ network }) => network[verb]()));
const statuses = () => Promise.all(ids.map((id) => capsules.status(id)));

/** Packets are dropped and nobody is told, as where a switch fails: connections stay open with nobody at their end. */
describe.skipIf(!findDebianPostgres())(
  'a host that is reached and one that reaches out, both cut off',
  { timeout: TEST_MS },
  () => {
    beforeAll(async () => {
      const database = stack.use(await DebianPostgres.start());
      const redis = stack.use(await RedisServer.start());
      fleet = stack.use(await Fleet.start({ databaseUrl: database.url, redisUrl: redis.url, controlPlanes: 1 }));
      capsules = new FleetCapsules(fleet);
      const reached = await fleet.addHost({ tags: ['reached'] });
      ids = [await capsules.create({ host_tags: ['reached'] })];
      hosts = [reached, await fleet.addHost({ isOutbound: true, tags: ['reaching'], like: reached })];
      ids = [...ids, await capsules.create({ host_tags: ['reaching'] })];
      await Promise.all(ids.map((id) => capsules.startCounter(id)));
    }, TEST_MS);
    afterAll(() => stack.disposeAsync(), TEST_MS);

    it('for a minute, miss nothing: who asks is told to ask again, and all goes on', async () => {
      const counts = await Promise.all(ids.map((id) => capsules.counted(id)));
      const cutAtMs = performance.now();
      await eachLine('cut');
      const refusals = Promise.all(
        ids.map(async (id) => {
          const answer = await capsules.call('POST', `/${id}/exec`, { cmd: 'true' });
          return { status: answer.status, reason: answer.body.error?.reason, afterMs: since(cutAtMs) };
        }),
      );
      refusals.catch(() => undefined);
      while (since(cutAtMs) < SHORT_CUT_MS) {
        expect(await statuses()).toEqual(['running', 'running']);
        await delay(1000);
      }
      await eachLine('mend');
      const upAtMs = performance.now();
      const refused = await refusals;
      print(`refused after ${refused.map(({ afterMs }) => (afterMs / 1000).toFixed(1)).join(' and ')} s`);
      for (const { afterMs, ...refusal } of refused) {
        expect(refusal).toEqual({ status: 503, reason: 'host_unavailable' });
        expect(afterMs).toBeLessThan(REFUSED_AFTER_MS);
      }
      await Promise.all(hosts.map((host) => fleet.untilFollowed(host)));
      // As many as a tenth of what it counts while nothing disturbs it.
      const counted = await Promise.all(ids.map((id) => capsules.counted(id)));
      print(`back ${(since(upAtMs) / 1000).toFixed(1)} s after a cut of ${SHORT_CUT_MS / 1000} s`);
      expect(since(upAtMs)).toBeLessThan(BACK_AFTER_MS);
      for (const [i, count] of counted.entries()) {
        expect(count).toBeGreaterThan((counts[i] ?? 0) + SHORT_CUT_MS / 1000);
      }
    });

    it('for longer, are missing and then as they were', async () => {
      const counts = await Promise.all(ids.map((id) => capsules.counted(id)));
      const cutAtMs = performance.now();
      await eachLine('cut');
      await Promise.all(ids.map((id) => capsules.untilStatus(id, 'missing')));
      print(`missing after ${(since(cutAtMs) / 1000).toFixed(1)} s`);
      expect(since(cutAtMs)).toBeLessThan(MISSING_AFTER_MS);
      await delay(LONG_CUT_MS - since(cutAtMs));
      expect(await statuses()).toEqual(['missing', 'missing']);
      await eachLine('mend');
      const upAtMs = performance.now();
      const backAfterS = await Promise.all(
        ids.map(async (id) => {
          await capsules.untilStatus(id, 'running');
          return (since(upAtMs) / 1000).toFixed(1);
        }),
      );
      print(`as they were ${backAfterS.join(' and ')} s after a cut of ${LONG_CUT_MS / 1000} s`);
      await Promise.all(hosts.map((host) => fleet.untilFollowed(host)));
      expect(since(upAtMs)).toBeLessThan(BACK_AFTER_MS);
      const counted = await Promise.all(ids.map((id) => capsules.counted(id)));
      for (const [i, count] of counted.entries()) expect(count).toBeGreaterThan((counts[i] ?? 0) + LONG_CUT_MS / 1000);
      await capsules.destroy(...ids);
    });
  },
);
