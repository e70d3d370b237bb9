import { startStopwatch } from '@wrenn/testing/stopwatch';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { TestPlatform } from '../testing/test-platform.ts';

/** A host that was heard of in this time counts as connecting again. */
const JUST_LOST_MS = 2000;

let platform: TestPlatform;
let paused: string;
beforeAll(async () => {
  platform = await TestPlatform.start({}, { hostSilenceMs: 60_000 });
  paused = await platform.createCapsule();
});
afterAll(() => platform[Symbol.asyncDispose]());

const verb = (name: string, method = 'POST') => platform.call(`/v1/capsules/${paused}/${name}`, { method });

/** The control plane has noticed that the only host is gone. */
async function lose(): Promise<void> {
  await platform.host.goSilent();
  await until('the host is lost', async () => !(await platform.fetch('/ready')).ok);
}

async function prepare(): Promise<void> {
  await until('the host is online', async () => (await platform.fetch('/ready')).ok);
  await verb('pause');
}

beforeEach(prepare);

it.each([
  ['create', 201, () => platform.call('/v1/capsules', { json: {} })],
  ['resume', 200, () => verb('resume')],
  ['verify', 200, () => verb('verify')],
])('a %s while the connection to the only host is made anew waits for it', async (_, status, ask) => {
  for (;;) {
    const beganMs = performance.now();
    await lose();
    const asked = ask();
    await platform.host.listen();
    const answer = await asked;
    // Where this machine stood still until the host was long gone, that was refused rightly.
    if (answer.status !== status && performance.now() - beganMs > JUST_LOST_MS) {
      await prepare();
      continue;
    }
    expect(answer).toMatchObject({ status });
    return;
  }
});

it.each([
  ['create', 'no_hosts_available', () => platform.call('/v1/capsules', { json: {} })],
  ['resume', 'host_unavailable', () => verb('resume')],
])(
  'a %s is refused soon when the host does not come back, and at once when it is long gone',
  async (_, reason, ask) => {
    await lose();
    expect(await ask()).toMatchObject({ status: 503, body: { error: { reason } } });
    using stopwatch = startStopwatch();
    expect((await ask()).status).toBe(503);
    expect(stopwatch.elapsedMs).toBeLessThan(1500);
    await platform.host.listen();
  },
);
