import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const ROM_BYTES = 64 * 1024;
/** Of kvm-probe.s. */
const CODE = Buffer.from(
  '+i5mDwEW0AAPIMBmg8gBDyLAZuoaAA8ACAC4EAAAAI7YjsCO0LwAgAAAxwUAEAAAAyAAAMcFBBAAAAAAAADHBQAgAAADMAAAxwUEIAAAAAAAAMcFADAAAIMAAADH' +
    'BQQwAAAAAAAAuAAQAAAPItgPIOCDyCAPIuC5gAAAwA8yDQABAAAPMA8gwA0AAACADyLA6pcADwAYAEjHxACAAAC5gJaYAFFZ/8l1+rAq5vT06/4AAAAAAAAAAP//' +
    'AAAAm88A//8AAACTzwD//wAAAJuvAB8AsAAPAAAAAAAAAAAAAAA=',
  'base64',
);
/** Where a CPU begins, 16 bytes before the end: a far jump to f000:0000. */
const RESET_JUMP = Buffer.from([0xea, 0, 0, 0, 0xf0]);
const RESET_OFFSET = ROM_BYTES - 16;
/** The exit device makes 2 n + 1 of the guest's 0x2a. */
const SUCCESS_STATUS = 0x2a * 2 + 1;

/**
 * Far above the 0.1 s that hardware takes, even on a host that is very busy; interpreted code takes longer still. A
 * second time, because the machine may stand still just then, and would do without KVM for as long as its agent runs.
 */
const PROBE_TIMEOUTS_MS = [10_000, 10_000];

/**
 * Runs a tiny x86 guest. Opening /dev/kvm says little: some kernels interpret the guest or lose it.
 *
 * @returns why KVM is of no use, or undefined where the guest ran at the speed of hardware.
 */
export async function probeKvm(
  qemuPath: string,
  accelerator: 'kvm' | 'tcg' = 'kvm',
  timeoutsMs: readonly number[] = PROBE_TIMEOUTS_MS,
): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), 'wrenn-kvm-probe-'));
  try {
    const romPath = join(folder, 'rom.bin');
    const rom = Buffer.alloc(ROM_BYTES);
    CODE.copy(rom);
    RESET_JUMP.copy(rom, RESET_OFFSET);
    await writeFile(romPath, rom);
    const args = probeArguments(accelerator, romPath);
    for (const timeoutMs of timeoutsMs) {
      const probe = await runProbe(qemuPath, args, timeoutMs);
      if (probe.end === 'goal') return undefined;
      if (probe.end === 'failure') return probe.problem;
    }
    return `a guest of a few instructions did not end within ${timeoutsMs.join(' ms, nor within ')} ms`;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function probeArguments(accelerator: 'kvm' | 'tcg', romPath: string): string[] {
  return [
    ...['-no-user-config', '-nodefaults', '-display', 'none', '-machine', 'microvm', '-m', '16M'],
    ...['-accel', accelerator, '-cpu', accelerator === 'kvm' ? 'host' : 'max'],
    ...['-bios', romPath, '-device', 'isa-debug-exit,iobase=0xf4,iosize=1'],
  ];
}

type Probe =
  | { readonly end: 'goal' }
  /** It was ended when its time was over. */
  | { readonly end: 'timeout' }
  | { readonly end: 'failure'; readonly problem: string };

async function runProbe(qemuPath: string, args: readonly string[], timeoutMs: number): Promise<Probe> {
  try {
    await promisify(execFile)(qemuPath, args, { timeout: timeoutMs, killSignal: 'SIGKILL' });
    return { end: 'failure', problem: 'the probe guest ended without reaching its goal' };
  } catch (error) {
    const { code, killed, stderr } = error as { code?: unknown; killed?: boolean; stderr?: string };
    if (code === SUCCESS_STATUS) return { end: 'goal' };
    if (killed) return { end: 'timeout' };
    const problem = `QEMU could not run a guest: ${stderr?.trim().split('\n').at(-1) || String(error)}`;
    return { end: 'failure', problem };
  }
}
