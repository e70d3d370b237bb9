import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { freePort } from '@wrenn/config/free-port';
import type { GuestKernel } from '@wrenn/guest-image/catalog';
import { readHostFacts } from '@wrenn/hypervisor/host-facts';
import { MACHINES } from '@wrenn/hypervisor/qemu/machine';
import { Process } from '@wrenn/protocol/gen/process/process_pb';
import { until } from '@wrenn/testing/until';

/** An emulated VM with nothing around it: QEMU's own user network and a console that is kept as text. */
export class PlainVm implements AsyncDisposable {
  readonly envdUrl: string;
  readonly #child: ReturnType<typeof spawn>;
  readonly #ended: Promise<unknown>;
  #console = '';

  private constructor(child: ReturnType<typeof spawn>, envdUrl: string) {
    this.#child = child;
    this.envdUrl = envdUrl;
    this.#ended = once(child, 'close');
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#console += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#console += text;
    });
  }

  /** Boots a disk, which stays as it is: what the guest writes is thrown away. */
  static async boot(kernel: GuestKernel, diskPath: string): Promise<PlainVm> {
    const machine = MACHINES[process.arch === 'arm64' ? 'aarch64' : 'x86_64'];
    const { tscKhz } = await readHostFacts();
    const parameters = [...machine.kernelParameters, ...machine.emulationParameters(tscKhz)].join(' ');
    const port = await freePort();
    const network = `user,id=net,net=169.254.0.16/28,host=169.254.0.22,dns=169.254.0.23,dhcpstart=169.254.0.21`;
    const child = spawn(
      machine.program,
      [
        ...['-no-user-config', '-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
        ...['-machine', machine.machine, '-accel', 'tcg', '-cpu', 'max', '-m', '512M'],
        ...machine.globals.flatMap((setting) => ['-global', setting]),
        ...[
          '-drive',
          `file=${diskPath},format=raw,if=none,id=disk,snapshot=on`,
          '-device',
          'virtio-blk-device,drive=disk',
        ],
        ...['-netdev', `${network},hostfwd=tcp:127.0.0.1:${port}-:49983`, '-device', 'virtio-net-device,netdev=net'],
        ...['-device', 'virtio-rng-device'],
        ...['-kernel', kernel.vmlinuxPath, '-initrd', kernel.initramfsPath, '-append', parameters],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    return new PlainVm(child, `http://127.0.0.1:${port}`);
  }

  get console(): string {
    return this.#console;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Waits until envd answers; fails with the console when the guest ends or the time does. */
  async envdUp(timeoutMs: number): Promise<void> {
    try {
      await until('envd answers', timeoutMs, async () => {
        if (!this.running) throw new Error('the VM ended');
        const answer = await fetch(`${this.envdUrl}/health`, { signal: AbortSignal.timeout(5_000) }).catch(
          () => undefined,
        );
        return answer?.status === 204;
      });
    } catch (error) {
      throw new Error(`The guest did not come up. Its console:\n${this.#console}`, { cause: error });
    }
  }

  /** Runs a program in the guest by envd's own protocol. */
  async run(user: string, cmd: string, ...args: string[]): Promise<{ output: string; exitCode: number | undefined }> {
    const client = createClient(Process, createConnectTransport({ baseUrl: this.envdUrl, httpVersion: '1.1' }));
    const headers = { Authorization: `Basic ${Buffer.from(`${user}:`).toString('base64')}` };
    const stream = client.start({ process: { cmd, args }, stdin: false }, { headers, timeoutMs: 60_000 });
    const chunks: Uint8Array[] = [];
    for await (const { event } of stream) {
      if (event?.event.case === 'data' && event.event.value.output.value) chunks.push(event.event.value.output.value);
      if (event?.event.case === 'end') {
        return { output: Buffer.concat(chunks).toString(), exitCode: event.event.value.exitCode };
      }
    }
    throw new ConnectError('the stream ended without the end of the program', Code.DataLoss);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}
