import { until } from '@wrenn/testing/until';
import { expect } from 'vitest';
import type { Answer, Fleet, FleetControlPlane, FleetHost } from './fleet.ts';
import { vmFolderOf } from './host-agent.ts';

/** Twenty times what any step takes on two cores that do nothing else. */
const PATIENCE_MS = 180_000;

/** What a team does with the capsules of a fleet. They are as small as capsules can be. */
export class FleetCapsules {
  static readonly SHAPE = { vcpus: 1, memory_mb: 128 };
  readonly #fleet: Fleet;

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
  }

  /** @param path below that of capsules */
  call(method: string, path: string, body?: unknown, at?: FleetControlPlane): Promise<Answer> {
    return this.#fleet.call(method, `/v1/capsules${path}`, body, at ? { at } : {});
  }

  /** @returns its id */
  async create(more: object = {}, at?: FleetControlPlane): Promise<string> {
    const { status, body } = await this.call('POST', '', { ...FleetCapsules.SHAPE, ...more }, at);
    if (status !== 201) throw new Error(`create was answered with ${status} ${JSON.stringify(body)}`);
    return body.id;
  }

  async destroy(...ids: readonly string[]): Promise<void> {
    const answers = await Promise.all(ids.map((id) => this.call('DELETE', `/${id}`)));
    expect(answers.map(({ status }) => status)).toEqual(ids.map(() => 204));
  }

  /** @returns what the script printed */
  async sh(id: string, script: string): Promise<string> {
    const { status, body } = await this.call('POST', `/${id}/exec`, { cmd: '/bin/sh', args: ['-c', script] });
    if (status !== 200) throw new Error(`exec was answered with ${status} ${JSON.stringify(body)}`);
    return body.stdout;
  }

  /** Starts a program that counts in memory, several times a second. Resolves when it does. */
  async startCounter(id: string): Promise<void> {
    const count =
      'i=0; while :; do i=$((i+1)); echo $i > /dev/shm/new; mv /dev/shm/new /dev/shm/count; sleep 0.1; done';
    await this.sh(id, `setsid sh -c '${count}' >/dev/null 2>&1 &`);
    await this.untilCounted(id, 3);
  }

  /** Zero where it has not begun. */
  async counted(id: string): Promise<number> {
    return Number(await this.sh(id, 'cat /dev/shm/count 2>/dev/null'));
  }

  /** Waits until its counter has passed a number. */
  async untilCounted(id: string, count: number): Promise<void> {
    await until(`${id} counts on`, PATIENCE_MS, async () => (await this.counted(id)) > count);
  }

  async status(id: string): Promise<string> {
    return (await this.call('GET', `/${id}`)).body.status;
  }

  async untilStatus(id: string, status: string): Promise<void> {
    await until(`${id} is ${status}`, PATIENCE_MS, async () => (await this.status(id)) === status);
  }

  async hostOf(id: string): Promise<FleetHost> {
    for (const host of this.#fleet.hosts) if (await vmFolderOf(host.dir, id)) return host;
    throw new Error(`no host has ${id}`);
  }
}
