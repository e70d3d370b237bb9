import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { freePort } from '@wrenn/config/free-port';
import { TestPeople } from '@wrenn/control-plane/testing/test-people';
import { TestPlatform } from '@wrenn/control-plane/testing/test-platform';
import { Visitor } from '@wrenn/control-plane/testing/visitor';
import { ensureLocalPki } from '@wrenn/pki/local-pki';
import { HostService } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import { hostSchema } from '@wrenn/protocol/rest/hosts';
import { until } from '@wrenn/testing/until';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { Program } from './support/platform.ts';

const MAIN = join(import.meta.dirname, '..', '..', 'apps', 'host-agent', 'src', 'main.ts');
const START_TIMEOUT_MS = 120_000;

let platform: TestPlatform;
let people: TestPeople;
let visitor: Visitor;
let admin: string;
let dir: string;
let port: number;
let program: Program | undefined;

beforeAll(async () => {
  platform = await TestPlatform.start({}, { hostSilenceMs: 90_000 });
  people = await TestPeople.of(platform);
  visitor = new Visitor(platform, people);
  admin = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
});
afterAll(async () => {
  await people[Symbol.asyncDispose]();
  await platform[Symbol.asyncDispose]();
});
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-'));
  port = await freePort();
});
afterEach(async () => {
  await program?.end('SIGTERM');
  await rm(dir, { recursive: true, force: true });
});

/** It needs neither kernels nor images until it is to make a VM. */
function start(...args: string[]): Program {
  const env = {
    ...{ WRENN_DIR: dir, WRENN_CP_URL: platform.baseUrl, WRENN_HOST_LISTEN_ADDR: `127.0.0.1:${port}` },
    WRENN_WARM_POOL_MAX_MB: '0',
  };
  program = new Program([process.execPath, MAIN, ...args], env, join(dir, 'agent.log'));
  program.start();
  return program;
}

async function newHost(): Promise<{ id: string; token: string }> {
  const { body } = await visitor.call('/v1/hosts', { token: admin, json: { type: 'regular' } });
  return { id: body.host.id, token: body.registration_token };
}

async function hostOf(id: string) {
  return hostSchema.parse((await visitor.call(`/v1/hosts/${id}`, { token: admin })).body);
}

/** @returns the host, once it has been heard of after an instant */
function untilHeard(id: string, after: Date) {
  return until('the host is heard of', START_TIMEOUT_MS, async () => {
    expect(program?.hasEnded, await readFile(join(dir, 'agent.log'), 'utf8')).toBe(false);
    const host = await hostOf(id);
    return host.status === 'online' && new Date(host.last_heartbeat_at ?? 0) > after ? host : undefined;
  });
}

/** What a control plane of the platform is answered, and one of another. */
function helloFrom(pki: Awaited<ReturnType<typeof ensureLocalPki>>, ca: string) {
  const nodeOptions = { ca, cert: pki.controlPlane.certPem, key: pki.controlPlane.keyPem };
  const transport = createConnectTransport({ httpVersion: '2', baseUrl: `https://127.0.0.1:${port}`, nodeOptions });
  return createClient(HostService, transport).hello({ protocolMin: 1, protocolMax: 1 }, { timeoutMs: 60_000 });
}

it('makes a machine a host, which trusts its platform alone and comes back without --register', async () => {
  const { id, token } = await newHost();
  const agent = start('--register', token, '--address', `127.0.0.1:${port}`);
  const first = await untilHeard(id, new Date(0));
  expect(first).toMatchObject({ address: `127.0.0.1:${port}`, problem: null, hypervisor: 'qemu' });
  const own = await ensureLocalPki(dirname(platform.apiKeyFile));
  expect((await helloFrom(own, own.caCertPem)).protocol).toBe(1);
  const elsewhere = await mkdtemp(join(tmpdir(), 'wrenn-pki-'));
  try {
    await expect(helloFrom(await ensureLocalPki(elsewhere), own.caCertPem)).rejects.toThrow();
  } finally {
    await rm(elsewhere, { recursive: true });
  }

  const stoppedAt = new Date();
  await agent.end('SIGTERM');
  start();
  expect((await untilHeard(id, stoppedAt)).id).toBe(id);
  // The authority of this machine has no part in it.
  expect(await readdir(dir)).not.toContain('pki');
});

it('ends with an error and leaves nothing where its token is refused', async () => {
  const agent = start('--register', 'nonsense', '--address', `127.0.0.1:${port}`);
  await until('it has ended', START_TIMEOUT_MS, () => agent.hasEnded);
  expect(await readFile(join(dir, 'agent.log'), 'utf8')).toMatch(
    /wrenn-agent: This machine was not registered\..*no such token was made.*POST \/v1\/hosts\/{id}\/token/,
  );
  expect(agent.exitCode).toBe(1);
  expect(await readdir(dir)).not.toContain('host-token');
});
