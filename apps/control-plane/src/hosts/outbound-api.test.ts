import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { pkiOf } from '@wrenn/host-agent/fleet/credentials';
import { until } from '@wrenn/testing/until';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { FleetHost } from '../testing/fleet-host.ts';
import { LoopbackHost } from '../testing/loopback-host.ts';
import { TestAgent } from '../testing/test-agent.ts';
import { TestPeople } from '../testing/test-people.ts';
import { TestPlatform } from '../testing/test-platform.ts';

let platform: TestPlatform;
let people: TestPeople;
let adminToken: string;
let door: Door;
const stack = new AsyncDisposableStack();

/** The address of the control planes, which a test can cut off. */
class Door implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Ports of control planes, which take their turns. */
  ports: number[] = [];
  #turn = 0;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async open(): Promise<Door> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const opened = new Door(server);
    server.on('connection', (socket) => opened.#join(socket));
    return opened;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #join(socket: Socket): void {
    const port = this.ports[this.#turn++ % this.ports.length] ?? 0;
    const other = connect(port, '127.0.0.1');
    for (const [one, two] of [
      [socket, other],
      [other, socket],
    ] as const) {
      this.#sockets.add(one);
      one
        .on('error', () => undefined)
        .once('close', () => {
          this.#sockets.delete(one);
          two.destroy();
        });
      one.pipe(two);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

const portOf = (url: string) => Number(new URL(url).port);

beforeAll(async () => {
  platform = stack.use(await TestPlatform.start({}, { hostSilenceMs: 60_000, drainMs: 600_000 }));
  people = stack.use(await TestPeople.of(platform));
  adminToken = await people.logIn(await people.addUser({ isAdmin: true }), undefined);
  // Whatever is made from here on is for hosts that registered.
  await platform.host.goSilent();
  door = stack.use(await Door.open());
  door.ports = [portOf(platform.baseUrl)];
});
afterAll(() => stack.disposeAsync());

const asAdmin = (path: string, init: { method?: string; json?: unknown } = {}) =>
  platform.call(path, { ...init, token: adminToken });

async function linked(): Promise<FleetHost> {
  const host = stack.use(await FleetHost.join(platform, { adminToken, outbound: true }));
  host.link(door.url);
  await host.online();
  return host;
}

async function deleted(host: FleetHost): Promise<void> {
  expect((await asAdmin(`/v1/hosts/${host.id}?force=true`, { method: 'DELETE' })).status).toBe(204);
}

/** What a request for a link is answered. */
async function refusal(id: string, headers: Record<string, string>): Promise<[number, string]> {
  const socket = new WebSocket(`${platform.baseUrl.replace('http', 'ws')}/v1/hosts/${id}/link`, { headers });
  socket.on('error', () => undefined);
  const [, answer] = await once(socket, 'unexpected-response');
  let text = '';
  for await (const part of answer) text += part;
  socket.terminate();
  return [answer.statusCode, JSON.parse(text).error.reason];
}

describe('a host that no address leads to', () => {
  it('is asked, and its guests are reached, through a connection that it brings', async () => {
    await using host = await linked();
    expect((await asAdmin(`/v1/hosts/${host.id}`)).body).toMatchObject({ status: 'online', connection: 'outbound' });
    const id = await platform.createCapsule();
    expect(host.loopback.vmIds()).toEqual([id]);
    const exec = await platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'echo', args: ['through'] } });
    expect(exec.body).toMatchObject({ exit_code: 0, stdout: 'through\n' });
    const content = Buffer.alloc(3_000_000, 'abc');
    const form = new FormData();
    form.set('path', '/tmp/outbound');
    form.set('file', new Blob([content]));
    expect((await platform.fetch(`/v1/capsules/${id}/files/write`, { method: 'POST', body: form })).status).toBe(204);
    const read = await platform.fetch(`/v1/capsules/${id}/files/read`, { json: { path: '/tmp/outbound' } });
    expect(Buffer.from(await read.arrayBuffer()).equals(content)).toBe(true);
    const pty = await platform.connect(`/v1/capsules/${id}/pty`);
    pty.send({ type: 'start', cmd: '/bin/cat' });
    await pty.takeUntil(({ type }) => type === 'started');
    pty.socket.terminate();
    await deleted(host);
  });

  it('brings another when that one is cut, and loses nothing', async () => {
    await using host = await linked();
    const id = await platform.createCapsule();
    for (let n = 0; n < 3; n += 1) {
      door.cut();
      const exec = await until('it answers again', async () => {
        const { status, body } = await platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'true' } });
        return status === 200 && body;
      });
      expect(exec).toMatchObject({ exit_code: 0 });
    }
    expect((await platform.call(`/v1/capsules/${id}`)).body.status).toBe('running');
    await deleted(host);
  });

  it('brings one to each control plane behind a balancer', async () => {
    await using another = await platform.startAnother();
    door.ports.push(another.port);
    try {
      await using host = await linked();
      const id = await platform.createCapsule();
      await until('both know two control planes', async () => {
        await host.heartbeat();
        return host.controlPlanes.length === 2;
      });
      for (const port of door.ports) {
        const exec = await until(`it is asked by the one at ${port}`, async () => {
          const answer = await fetch(`http://127.0.0.1:${port}/v1/capsules/${id}/exec`, {
            method: 'POST',
            headers: { 'x-api-key': platform.apiKey, 'content-type': 'application/json' },
            body: JSON.stringify({ cmd: 'true' }),
          });
          const body = await answer.json();
          return answer.status === 200 && body;
        });
        expect(exec).toMatchObject({ exit_code: 0 });
      }
      await deleted(host);
    } finally {
      door.ports.pop();
    }
  });

  it('is let in by its own token alone, by one agent, and only where it has no address', async () => {
    await using host = await linked();
    await using other = await FleetHost.join(platform, { adminToken });
    const token = (value: string) => ({ 'x-host-token': value });
    expect(await refusal(host.id, {})).toEqual([401, 'unauthorized']);
    expect(await refusal(host.id, token('nonsense'))).toEqual([401, 'unauthorized']);
    expect(await refusal(host.id, { 'x-api-key': platform.apiKey })).toEqual([401, 'unauthorized']);
    expect(await refusal(host.id, token(other.token))).toEqual([403, 'forbidden']);
    expect(await refusal(other.id, token(other.token))).toEqual([409, 'host_state']);
    const held = { ...token(host.token), 'x-wrenn-linked': host.controlPlanes.join(',') };
    expect(await refusal(host.id, held)).toEqual([409, 'conflict']);
    // An agent that was started anew is the one that counts; a copy of the one before is not.
    await host.heartbeat({ boot_id: 'another', sequence: 1 });
    const copy = { ...token(host.token), 'x-wrenn-boot-id': host.bootId };
    expect(await refusal(host.id, copy)).toEqual([409, 'host_credential_shared']);
    await deleted(host);
    expect(await refusal(host.id, token(host.token))).toEqual([410, 'host_deleted']);
    await deleted(other);
  });

  it('is dropped when it is deleted', async () => {
    await using host = await linked();
    const path = `/v1/hosts/${host.id}/link`;
    await host.unlink();
    // One that ended is listed for some seconds more.
    await until('one control plane is listed', async () => (await host.heartbeat()) && host.controlPlanes.length === 1);
    const socket = new WebSocket(`${platform.baseUrl.replace('http', 'ws')}${path}`, {
      headers: { 'x-host-token': host.token },
    });
    const closed = new Promise((resolve) => socket.once('close', resolve));
    const [upgrade] = await once(socket, 'upgrade');
    socket.on('error', () => undefined);
    expect(upgrade.headers['x-wrenn-control-plane']).toBe(host.controlPlanes[0]);
    await deleted(host);
    await closed;
  });

  it('is one whose agent was told of no address', async () => {
    const { body } = await asAdmin('/v1/hosts', { json: { type: 'regular' } });
    await using agent = await TestAgent.make();
    const { credentials } = await agent.join({ cpUrl: door.url, register: body.registration_token });
    await using loopback = await LoopbackHost.start(platform.wrennDir);
    loopback.showFromNow(pkiOf(credentials));
    agent.accept = (stream) => loopback.accept(stream);
    agent.run();
    const { id } = body.host;
    const made = await until('it takes a capsule', async () => {
      const answer = await platform.call('/v1/capsules', { json: {} });
      return answer.status === 201 && answer.body;
    });
    expect(loopback.vmIds()).toEqual([made.id]);
    expect((await asAdmin(`/v1/hosts/${id}`)).body).toMatchObject({ connection: 'outbound', address: null });
    expect((await asAdmin(`/v1/hosts/${id}?force=true`, { method: 'DELETE' })).status).toBe(204);
  });

  it('is asked until the requests that need it are answered, when the server stops', async () => {
    await using host = await linked();
    const id = await platform.createCapsule();
    const args = ['-c', 'touch begun; sleep 1; echo done'];
    const exec = platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'sh', args } });
    await until('it has begun', async () => {
      const test = await platform.call(`/v1/capsules/${id}/exec`, { json: { cmd: 'test', args: ['-e', 'begun'] } });
      return test.body.exit_code === 0;
    });
    // Requests may take ten minutes then, and nobody waits for that here.
    await platform.stopControlPlane();
    expect(await exec).toMatchObject({ status: 200, body: { stdout: 'done\n' } });
    expect(host.loopback.vmIds()).toEqual([id]);
  });
});
