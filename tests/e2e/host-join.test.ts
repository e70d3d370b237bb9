import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '@wrenn/config/free-port';
import { hostWithTokenSchema } from '@wrenn/protocol/rest/hosts';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { LoneControlPlane } from './support/lone-control-plane.ts';
import { temporaryWrennDir } from './support/platform.ts';
import { type RunningWrenn, startWrenn } from './support/wrenn.ts';

const stack = new AsyncDisposableStack();
let controlPlane: LoneControlPlane;
let dir: string;
let env: Record<string, string>;

beforeAll(async () => {
  const work = await mkdtemp(join(tmpdir(), 'wrenn-join-'));
  stack.defer(() => rm(work, { recursive: true, force: true }));
  controlPlane = stack.use(await LoneControlPlane.start(work));
  dir = await temporaryWrennDir();
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  env = {
    WRENN_DIR: dir,
    WRENN_HOST_LISTEN_ADDR: `127.0.0.1:${await freePort()}`,
    WRENN_WARM_POOL_MAX_MB: '0',
    WRENN_BASE_URL: controlPlane.baseUrl,
    WRENN_API_KEY: '',
  };
});

afterAll(() => stack.disposeAsync());

it('makes a machine a host that nothing need reach, and goes on later without a token', async () => {
  const answer = await fetch(`${controlPlane.baseUrl}/v1/hosts`, {
    method: 'POST',
    headers: { authorization: `Bearer ${controlPlane.adminToken}` },
  });
  const { host, registration_token: token } = hostWithTokenSchema.parse(await answer.json());

  await joined(startWrenn(['host', 'join', token], env), async () => {
    const found = await until('the host is online', 60_000, () => online(host.id));
    expect(found).toMatchObject({ connection: 'outbound', address: null });
  });
  const { last_heartbeat_at: before } = await controlPlane.host(host.id);

  await joined(startWrenn(['host', 'join'], env), async () => {
    const isHeard = async () => (await online(host.id))?.last_heartbeat_at !== before;
    await until('the host is heard of again', 60_000, isHeard);
  });
  const again = startWrenn(['host', 'join'], { ...env, WRENN_DIR: join(dir, 'other') });
  expect(await again.result).toMatchObject({ status: 1, stderr: expect.stringContaining('has not joined yet') });
});

async function online(id: string) {
  const host = await controlPlane.host(id);
  return host.status === 'online' ? host : undefined;
}

/** Does something while the machine is a host, and ends that as Ctrl-C does. */
async function joined({ child, result }: RunningWrenn, use: () => Promise<void>): Promise<void> {
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => {
      said += data;
    });
  }
  try {
    await until('the machine has joined', 120_000, () => said.includes('Ctrl-C stops') || child.exitCode !== null);
    expect(said).toContain(`this machine is a host of ${controlPlane.baseUrl}`);
    await use();
  } finally {
    child.kill('SIGINT');
    await result;
  }
  expect(await result).toMatchObject({ status: 0 });
}
