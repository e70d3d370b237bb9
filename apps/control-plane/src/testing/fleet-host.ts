import { randomUUID } from 'node:crypto';
import { startOutboundLink } from '@wrenn/host-agent/fleet/outbound-link';
import { makeSigningRequest } from '@wrenn/pki/signing-request';
import { VmState } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { HOST_VM_STATES } from '@wrenn/protocol/rest/hosts';
import { until } from '@wrenn/testing/until';
import { pino } from 'pino';
import { LoopbackHost } from './loopback-host.ts';
import { TestHosts } from './test-hosts.ts';
import type { TestPlatform } from './test-platform.ts';

const STATES: Partial<Record<VmState, (typeof HOST_VM_STATES)[number]>> = {
  [VmState.STARTING]: 'starting',
  [VmState.RUNNING]: 'running',
  [VmState.STOPPING]: 'stopping',
  [VmState.FAILED]: 'failed',
  [VmState.PAUSING]: 'pausing',
  [VmState.PAUSED]: 'paused',
};

type Answer = Awaited<ReturnType<TestPlatform['call']>>;

export interface JoinOptions {
  /** Of an administrator of the platform. */
  readonly adminToken: string;
  /** Undefined: the control plane reaches it by its address. */
  readonly outbound?: boolean;
  readonly tags?: readonly string[];
}

/** A host that registered with a platform by a token, whose guests are envds on loopback addresses. */
export class FleetHost implements AsyncDisposable {
  readonly id: string;
  readonly loopback: LoopbackHost;
  readonly bootId = randomUUID();
  token: string;
  /** Ids of the control planes that its heartbeats were told of. */
  controlPlanes: readonly string[] = [];
  /** What its heartbeats say besides what it has. */
  facts: object = {};
  readonly #platform: TestPlatform;
  readonly #agents: TestHosts;
  #sequence = 0;
  #link: { readonly stop: AbortController; readonly running: Promise<void> } | undefined;

  private constructor(platform: TestPlatform, id: string, token: string, loopback: LoopbackHost) {
    this.#platform = platform;
    this.#agents = new TestHosts(platform);
    this.id = id;
    this.token = token;
    this.loopback = loopback;
  }

  /** Makes a host and registers its agent. */
  static async join(
    platform: TestPlatform,
    { adminToken, outbound = false, tags = [] }: JoinOptions,
  ): Promise<FleetHost> {
    const made = await platform.call('/v1/hosts', {
      json: { type: 'regular', tags },
      token: adminToken,
    });
    if (made.status !== 201) throw new Error(`the host was answered with ${made.status}`);
    // It must listen before it can say where, and then shows the certificate for that.
    const loopback = await LoopbackHost.start(platform.wrennDir);
    const address = loopback.address.replace('https://', '');
    const { csrPem, keyPem } = await makeSigningRequest();
    const registered = await new TestHosts(platform).register(made.body.registration_token, {
      ...{ address: outbound ? undefined : address, csr: csrPem },
      ...{ cpu_cores: 64, memory_mb: 65_536, disk_gb: 1000 },
    });
    if (registered.status !== 201) throw new Error(`the registration was answered with ${registered.status}`);
    const { token, cert_pem: certPem, ca_cert_pem: caCertPem, host_id: id } = registered.body;
    loopback.showFromNow({ caCertPem, agent: { certPem, keyPem } });
    return new FleetHost(platform, id, token, loopback);
  }

  /** Tells the platform that it lives, and what it has. */
  async heartbeat(more: object = {}): Promise<Answer> {
    const vms = this.loopback.vmIds().flatMap((id) => {
      const vm = this.loopback.vm(id);
      const state = vm && STATES[vm.state];
      return vm && state ? [{ id, state, generation: vm.generation }] : [];
    });
    const answer = await this.#agents.heartbeat(this.id, this.token, {
      ...{ boot_id: this.bootId, sequence: ++this.#sequence, cpu_cores: 64, memory_mb: 65_536, vms },
      ...this.facts,
      ...more,
    });
    if (answer.status === 200) this.controlPlanes = answer.body.control_planes;
    return answer;
  }

  /** Brings streams to the platform, by another address where it is given, until `unlink`. */
  link(cpUrl = this.#platform.baseUrl): void {
    const stop = new AbortController();
    const running = startOutboundLink({
      ...{ cpUrl, hostId: this.id, bootId: this.bootId, signal: stop.signal },
      token: () => this.token,
      controlPlanes: () => this.controlPlanes,
      accept: (stream) => this.loopback.accept(stream),
      log: pino({ level: process.env.TEST_LOG_LEVEL ?? 'silent' }),
      backOff: { firstMs: 20, lastMs: 200 },
    });
    this.#link = { stop, running };
  }

  /** Ends its streams. */
  async unlink(): Promise<void> {
    this.#link?.stop.abort();
    await this.#link?.running;
    this.#link = undefined;
  }

  /**
   * Waits until the platform can use it, before any other joins: one with an address is followed from then on.
   *
   * @param online how many hosts are online then, with those from before
   */
  async online(online = 1): Promise<void> {
    await until('the host is online', async () => (await this.heartbeat()).body?.status === 'online');
    await until('its events are heard', async () => {
      await this.heartbeat();
      const { body } = await this.#platform.call('/ready');
      return body.checks.host.detail === `${online} online`;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.unlink();
    await this.loopback[Symbol.asyncDispose]();
  }
}
