import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { readEnvironment } from '@wrenn/config/environment';
import { z } from 'zod';
import { HOST_ROOT, type HostFacts, type HostRoot, readHostFacts } from './host-facts.ts';
import type { Hypervisor } from './hypervisor.ts';
import { probeKvm } from './qemu/kvm-probe.ts';
import { type Accelerator, type Architecture, isAtLeast, MACHINES } from './qemu/machine.ts';
import { createQemuHypervisor } from './qemu/qemu-hypervisor.ts';

/** The variables that overrule the choice. */
export const hypervisorEnvironment = {
  WRENN_HYPERVISOR: z.enum(['firecracker', 'qemu']).optional(),
  WRENN_ACCEL: z.enum(['kvm', 'tcg']).optional(),
};

/** One thing that was looked at. */
export interface Finding {
  /** A few words, e.g. "/dev/kvm". */
  readonly what: string;
  /** False where VMs cannot run, or not as the environment demands, because of this. */
  readonly ok: boolean;
  readonly detail: string;
  /** What to do about it; with `ok`, what would make VMs better. */
  readonly remedy?: string;
}

/** No VM can run here. */
export class NoHypervisorError extends Error {
  override readonly name = 'NoHypervisorError';
  readonly explanation: readonly Finding[];

  constructor(explanation: readonly Finding[]) {
    const lines = explanation
      .filter((finding) => !finding.ok)
      .map((finding) => `  ${finding.what}: ${finding.detail}${finding.remedy ? `. ${finding.remedy}` : ''}`);
    super(`This machine cannot run microVMs:\n${lines.join('\n')}`);
    this.explanation = explanation;
  }
}

export interface HypervisorChoice {
  readonly hypervisor: Hypervisor;
  /** In the order in which things were looked at; the last one is the choice. */
  readonly explanation: readonly Finding[];
}

export interface ChoiceOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Where the host's /proc and so on are. */
  readonly root?: HostRoot;
  /** Node's name of the processor architecture. */
  readonly arch?: string;
}

/** Older versions lack options that the driver uses. */
const OLDEST_QEMU = { major: 7, minor: 2 };
const QEMU_TIMEOUT_MS = 10_000;

/**
 * Finds the best way to run VMs on this machine: QEMU with KVM where KVM is usable, else QEMU with emulation.
 *
 * @throws NoHypervisorError with all findings; EnvironmentError where a variable has an unknown value.
 */
export async function chooseHypervisor(options: ChoiceOptions = {}): Promise<HypervisorChoice> {
  const env = options.env ?? process.env;
  const wanted = readEnvironment(hypervisorEnvironment, env);
  const facts = await readHostFacts(options.root ?? HOST_ROOT);
  const findings: Finding[] = [];
  const arch = architecture(options.arch ?? process.arch);
  if (arch === undefined) {
    findings.push({
      what: 'processor',
      ok: false,
      detail: `Wrenn runs on x86_64 and aarch64, not on ${options.arch ?? process.arch}`,
    });
    throw new NoHypervisorError(findings);
  }
  findings.push(await firecrackerFinding(env, wanted.WRENN_HYPERVISOR));
  const qemu = await findQemu(arch, env);
  findings.push(qemu.finding, ptraceFinding(facts));
  const path = qemu.program?.path;
  const kvm = await kvmFindings(facts, arch, path);
  const accelerator = wanted.WRENN_ACCEL ?? (kvm.usable ? 'kvm' : 'tcg');
  findings.push(...kvm.findings, acceleratorFinding(accelerator, wanted.WRENN_ACCEL, kvm.usable, facts));
  if (qemu.program === undefined || findings.some((finding) => !finding.ok)) throw new NoHypervisorError(findings);
  const { version } = qemu.program;
  findings.push({ what: 'hypervisor', ok: true, detail: `QEMU ${version} with ${ACCELERATOR_NAMES[accelerator]}` });
  const hypervisor = createQemuHypervisor({
    path: qemu.program.path,
    tscKhz: facts.tscKhz,
    identity: { kind: 'qemu', version, accelerator, arch, cpu: guestCpu(accelerator, arch, facts) },
  });
  return { hypervisor, explanation: findings };
}

const ACCELERATOR_NAMES = { kvm: 'KVM', tcg: 'software emulation' } as const;

function architecture(nodeArch: string): Architecture | undefined {
  if (nodeArch === 'x64') return 'x86_64';
  return nodeArch === 'arm64' ? 'aarch64' : undefined;
}

/**
 * What the guest's CPU depends on. An emulated CPU is the same everywhere but for its time stamp counter, which runs at
 * the host's rate: hosts share snapshots whose rates lie in one range of 50 MHz. Its bounds lie off the rates that
 * processors have, so that a host's own measure, a little different after each boot, stays within.
 */
function guestCpu(accelerator: Accelerator, arch: Architecture, facts: HostFacts): string {
  if (accelerator === 'kvm') return `host:${facts.processor}`;
  const { emulatedCpu } = MACHINES[arch];
  if (facts.tscKhz === undefined) return emulatedCpu;
  const from = Math.floor((facts.tscKhz / 1000 - 12.5) / 50) * 50 + 12.5;
  return `${emulatedCpu}:tsc-${from}-${from + 50}-mhz`;
}

async function firecrackerFinding(
  env: NonNullable<ChoiceOptions['env']>,
  wanted: 'firecracker' | 'qemu' | undefined,
): Promise<Finding> {
  const what = 'Firecracker';
  if (wanted === 'firecracker') {
    return {
      what,
      ok: false,
      detail: 'WRENN_HYPERVISOR=firecracker, but this version of Wrenn has no driver for Firecracker',
      remedy: 'Unset WRENN_HYPERVISOR, or set it to qemu',
    };
  }
  const path = await findProgram('firecracker', env);
  const found = path === undefined ? 'not installed' : `found at ${path}`;
  return { what, ok: true, detail: `${found}; not used, because this version of Wrenn has no driver for it` };
}

interface FoundQemu {
  readonly finding: Finding;
  readonly program?: { readonly path: string; readonly version: string };
}

async function findQemu(arch: Architecture, env: NonNullable<ChoiceOptions['env']>): Promise<FoundQemu> {
  const machine = MACHINES[arch];
  const what = 'QEMU';
  const path = await findProgram(machine.program, env);
  if (path === undefined) {
    return {
      finding: {
        what,
        ok: false,
        detail: `there is no ${machine.program} on PATH`,
        remedy: `Install it: apt-get install ${machine.package}`,
      },
    };
  }
  let version: string | undefined;
  try {
    const { stdout } = await promisify(execFile)(path, ['--version'], { timeout: QEMU_TIMEOUT_MS });
    version = /version (\d+\.\d+(?:\.\d+)?)/.exec(stdout)?.[1];
  } catch (error) {
    return {
      finding: { what, ok: false, detail: `${path} cannot be run: ${error instanceof Error ? error.message : error}` },
    };
  }
  if (version === undefined || !isAtLeast(version, OLDEST_QEMU.major, OLDEST_QEMU.minor)) {
    return {
      finding: {
        what,
        ok: false,
        detail: `${path} is version ${version ?? 'unknown'}`,
        remedy: `Install QEMU ${OLDEST_QEMU.major}.${OLDEST_QEMU.minor} or later`,
      },
    };
  }
  return { finding: { what, ok: true, detail: `version ${version} at ${path}` }, program: { path, version } };
}

async function findProgram(name: string, env: NonNullable<ChoiceOptions['env']>): Promise<string | undefined> {
  for (const folder of (env.PATH ?? '/usr/local/bin:/usr/bin:/bin').split(':')) {
    if (!folder.startsWith('/')) continue;
    const path = join(folder, name);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

function ptraceFinding(facts: HostFacts): Finding {
  const what = 'snapshots of memory';
  if (facts.ptraceScope < 3) return { what, ok: true, detail: 'the kernel lets root read the memory of VMs' };
  return {
    what,
    ok: false,
    detail: 'kernel.yama.ptrace_scope is 3, which forbids even root to read the memory of VMs',
    remedy: 'Remove that setting from /etc/sysctl.d and restart the machine',
  };
}

/** Whether KVM runs guests, and what that was seen from. */
async function kvmFindings(
  facts: HostFacts,
  arch: Architecture,
  qemuPath: string | undefined,
): Promise<{ usable: boolean; findings: Finding[] }> {
  const device = kvmDeviceFinding(facts);
  if (arch === 'aarch64') {
    // ARM kernels only offer KVM where they run at the level that can; there is no flag to ask, and no probe guest yet.
    return { usable: facts.kvmDevice === 'usable', findings: [device] };
  }
  const findings = [device];
  if (facts.extension === undefined) {
    findings.push({
      what: 'processor virtualisation',
      ok: true,
      detail: facts.pvm
        ? 'no vmx or svm: /dev/kvm comes from PVM, on which the kernels of Linux distributions hang'
        : 'the processor shows neither vmx nor svm',
      remedy: 'Turn on virtualisation in the firmware, or nested virtualisation at the provider of this machine',
    });
    return { usable: false, findings };
  }
  findings.push({ what: 'processor virtualisation', ok: true, detail: facts.extension });
  if (facts.kvmDevice !== 'usable' || qemuPath === undefined) return { usable: false, findings };
  const problem = await probeKvm(qemuPath);
  findings.push({ what: 'KVM', ok: true, detail: problem ?? 'ran a probe guest at the speed of hardware' });
  return { usable: problem === undefined, findings };
}

function kvmDeviceFinding(facts: HostFacts): Finding {
  const what = '/dev/kvm';
  switch (facts.kvmDevice) {
    case 'usable':
      return { what, ok: true, detail: 'can be opened' };
    case 'missing':
      return { what, ok: true, detail: 'is not there', remedy: 'Load the kernel module kvm_intel or kvm_amd' };
    case 'forbidden':
      return {
        what,
        ok: true,
        detail: 'cannot be opened by this user',
        remedy: 'Run as root, or allow this user to open it',
      };
  }
}

function acceleratorFinding(
  accelerator: Accelerator,
  wanted: Accelerator | undefined,
  kvmUsable: boolean,
  facts: HostFacts,
): Finding {
  const what = 'acceleration';
  if (wanted === undefined) {
    const detail = kvmUsable ? 'KVM, which is usable here' : 'software emulation, because KVM is not usable here';
    return { what, ok: true, detail };
  }
  if (accelerator === 'kvm' && facts.kvmDevice !== 'usable') {
    return {
      what,
      ok: false,
      detail: 'WRENN_ACCEL=kvm, but /dev/kvm cannot be opened',
      remedy: 'Unset WRENN_ACCEL, or make /dev/kvm available',
    };
  }
  const doubt = accelerator === 'kvm' && !kvmUsable ? '; VMs will probably hang here' : '';
  return { what, ok: true, detail: `${ACCELERATOR_NAMES[accelerator]}, because WRENN_ACCEL asks for it${doubt}` };
}
