import { existsSync } from 'node:fs';
import { runCommand } from '@wrenn/host-agent/processes/run-command';

const CUT = `table inet cut {
  chain in { type filter hook input priority -200; iifname "eth0" drop; }
  chain out { type filter hook output priority -200; oifname "eth0" drop; }
}`;

/** A machine of its own as far as its network goes, with one line to this one. */
export interface HostNetwork {
  readonly namespacePath: string;
  /** Address of the machine. */
  readonly address: string;
  /** Address of this machine, as the other one sees it. */
  readonly gateway: string;
  /** A command that runs there. */
  inside(program: string, ...args: string[]): [string, ...string[]];
  /** Lets nothing through any more, without telling anybody: every packet is dropped, both ways. */
  cut(): Promise<void>;
  /** Ends that. */
  mend(): Promise<void>;
}

/** Network namespaces that stand for machines. Disposing it removes them; what runs in them has ended by then. */
export class FleetNetwork implements AsyncDisposable {
  #made = 0;

  async addHost(): Promise<HostNetwork> {
    const n = this.#made++;
    const { namespace, veth } = namesOf(n);
    const [gateway, address] = [1, 2].map((side) => `10.213.${process.pid % 256}.${4 * n + side}`) as [string, string];
    const input = [
      `netns add ${namespace}`,
      `link add ${veth} type veth peer name eth0 netns ${namespace}`,
      `link set ${veth} addrgenmode none`,
      `addr add ${gateway}/30 dev ${veth}`,
      `link set ${veth} up`,
    ];
    await runCommand('ip', ['-batch', '-'], { input: input.join('\n') });
    const own = [
      'link set lo up',
      `addr add ${address}/30 dev eth0`,
      'link set eth0 up',
      `route add default via ${gateway}`,
    ];
    await runCommand('ip', ['-n', namespace, '-batch', '-'], { input: own.join('\n') });
    const namespacePath = `/run/netns/${namespace}`;
    return {
      ...{ namespacePath, address, gateway },
      inside: (program, ...args) => ['nsenter', `--net=${namespacePath}`, program, ...args],
      cut: () => nft(namespacePath, CUT),
      mend: () => nft(namespacePath, 'delete table inet cut'),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const names = Array.from({ length: this.#made }, (_, n) => namesOf(n));
    const input = names.map(({ namespace, veth }) => `link del ${veth}\nnetns del ${namespace}\n`).join('');
    // Of a host that was made by half, one of them fails.
    const failure = await runCommand('ip', ['-force', '-batch', '-'], { input }).catch((error: unknown) => error);
    for (const { namespace } of names) {
      if (existsSync(`/run/netns/${namespace}`)) throw new Error(`${namespace} cannot be removed`, { cause: failure });
    }
  }
}

async function nft(namespacePath: string, input: string): Promise<void> {
  await runCommand('nsenter', [`--net=${namespacePath}`, 'nft', '-f', '-'], { input });
}

function namesOf(n: number) {
  return { namespace: `wrenn-fleet-${process.pid}-${n}`, veth: `wrf-${process.pid}-${n}` };
}
