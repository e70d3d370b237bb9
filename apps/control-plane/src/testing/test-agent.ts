import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Duplex, Writable } from 'node:stream';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import type { HeartbeatFacts } from '@wrenn/host-agent/fleet/host-facts';
import { type FleetOptions, FleetWork, joinFleet, type Membership } from '@wrenn/host-agent/fleet/membership';
import type { TakenSamples } from '@wrenn/host-agent/metrics/sample-ring';
import type { AgentPki } from '@wrenn/host-agent/server/agent-server';
import { type Logger, pino } from 'pino';

const IDENTITY = { kind: 'qemu', version: '7.2.22', accelerator: 'tcg', arch: 'x86_64', cpu: 'max' } as const;
/** A hundred times as fast as an agent. */
const TIMING = { intervalMs: 60, backOff: { firstMs: 10, lastMs: 60 }, rareMs: 150 };
let nextPort = 51_000;

interface Line {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** What an agent is of besides its VMs: its folder, its membership, and its work for its platform. */
export class TestAgent implements AsyncDisposable {
  readonly dir: ReturnType<typeof wrennDir>;
  readonly address = `127.0.0.1:${nextPort++}`;
  /** What it logged, at all levels. */
  readonly lines: Line[] = [];
  /** Certificates that its server was given after the first. */
  readonly renewed: AgentPki[] = [];
  vms: HeartbeatFacts['vms'] = [];
  /** What its server does with connections that it brought. */
  accept: (stream: Duplex) => void = (stream) => stream.destroy();
  takeSamples: () => TakenSamples = () => ({ samples: [], acknowledge: () => undefined });
  membership: Membership | undefined;
  work: FleetWork | undefined;
  readonly #log: Logger;

  private constructor(root: string) {
    this.dir = wrennDir(root);
    const write = (chunk: Buffer, _encoding: BufferEncoding, done: () => void) => {
      this.lines.push(JSON.parse(chunk.toString()));
      done();
    };
    this.#log = pino({ level: 'trace' }, new Writable({ write }));
  }

  static async make(): Promise<TestAgent> {
    return new TestAgent(await mkdtemp(join(tmpdir(), 'wrenn-agent-')));
  }

  /** What a start of the program does before it serves. */
  async join(options: Partial<FleetOptions> = {}, patienceMs = 20_000): Promise<Membership> {
    this.membership = await joinFleet({
      ...{ cpUrl: undefined, register: undefined, address: undefined, ...options },
      ...{ dir: this.dir, facts: { dir: this.dir, identity: IDENTITY, agentVersion: '0.1.0' } },
      ...{ log: this.#log, signal: AbortSignal.timeout(25_000), patienceMs },
    });
    if (!this.membership) throw new Error('it is the agent of a platform on this machine');
    return this.membership;
  }

  /** What the program does once it serves. */
  run(timing: Partial<typeof TIMING> = {}): FleetWork {
    if (!this.membership) throw new Error('it has not joined');
    this.work = new FleetWork(this.membership, {
      dir: this.dir,
      onRenewed: (pki) => this.renewed.push(pki),
      accept: (stream) => this.accept(stream),
      facts: async () => this.#facts(),
      takeSamples: () => this.takeSamples(),
      log: this.#log,
      timing: { ...TIMING, ...timing },
    });
    return this.work;
  }

  async stop(): Promise<void> {
    const { work } = this;
    this.work = undefined;
    await work?.[Symbol.asyncDispose]();
  }

  /** The program ended and was started again, without a word about the platform. */
  async restart(): Promise<FleetWork> {
    await this.stop();
    await this.join();
    return this.run();
  }

  saved(): Promise<string> {
    return readFile(this.dir.hostCredentials, 'utf8');
  }

  told(message: string): Line[] {
    return this.lines.filter(({ msg }) => msg.includes(message));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await rm(this.dir.root, { recursive: true, force: true });
  }

  #facts(): HeartbeatFacts {
    return {
      ...{ agent_version: '0.1.0', cpu_cores: 2, memory_mb: 4096, memory_free_mb: 2048, load_1m: 0.5 },
      ...{ disk_mb: 100_000, disk_free_mb: 50_000, templates: ['minimal'], vms: this.vms },
    };
  }
}
