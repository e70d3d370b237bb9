import { constants } from 'node:fs';
import { access, open, readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';

/** What a host says about its processor and KVM. */
export interface HostFacts {
  /** Name of the virtualisation extension, from the processor's flags. Always undefined on ARM, which has no such flag. */
  readonly extension: 'vmx' | 'svm' | undefined;
  /** Names this processor among others: vendor, family, model, stepping and a hash of its features. */
  readonly processor: string;
  /** Rate of the time stamp counter, where the host has one. */
  readonly tscKhz: number | undefined;
  readonly kvmDevice: 'missing' | 'forbidden' | 'usable';
  /** The kernel offers KVM without the processor's help (PVM). */
  readonly pvm: boolean;
  /** 3 forbids even root to read another process. */
  readonly ptraceScope: number;
}

/** Where to look; tests give other folders. */
export interface HostRoot {
  readonly procDir: string;
  readonly sysDir: string;
  readonly bootDir: string;
  readonly kvmPath: string;
}

export const HOST_ROOT: HostRoot = { procDir: '/proc', sysDir: '/sys', bootDir: '/boot', kvmPath: '/dev/kvm' };

export async function readHostFacts(root: HostRoot = HOST_ROOT): Promise<HostFacts> {
  const cpuinfo = parseCpuinfo(await readFile(join(root.procDir, 'cpuinfo'), 'utf8'));
  const flags = new Set((cpuinfo.get('flags') ?? '').split(' '));
  const bogomips = Number(cpuinfo.get('bogomips'));
  return {
    extension: flags.has('vmx') ? 'vmx' : flags.has('svm') ? 'svm' : undefined,
    processor: await describeProcessor(cpuinfo),
    // x86 kernels derive this value from the counter's rate, two per MHz; "cpu MHz" is the clock of the moment.
    tscKhz: flags.has('tsc') && bogomips > 0 ? Math.round(bogomips * 500) : undefined,
    kvmDevice: await readKvmDevice(root.kvmPath),
    pvm: await hasPvm(root),
    ptraceScope: Number(await readOptional(join(root.procDir, 'sys/kernel/yama/ptrace_scope'))) || 0,
  };
}

/** The fields of the first processor. */
function parseCpuinfo(text: string): Map<string, string> {
  const first = text.split('\n\n')[0] ?? '';
  return new Map(
    first.split('\n').map((line) => [line.split(':')[0]?.trim() ?? '', line.slice(line.indexOf(':') + 1).trim()]),
  );
}

async function describeProcessor(cpuinfo: ReadonlyMap<string, string>): Promise<string> {
  const names = [
    'vendor_id',
    'cpu family',
    'model',
    'stepping',
    'CPU implementer',
    'CPU part',
    'CPU variant',
    'CPU revision',
  ];
  const model = names.flatMap((name) => cpuinfo.get(name) ?? []).join('/');
  const features = cpuinfo.get('flags') ?? cpuinfo.get('Features') ?? '';
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(features.split(' ').sort().join(' ')));
  return `${model}/${Buffer.from(hash).toString('hex').slice(0, 8)}`;
}

async function readKvmDevice(path: string): Promise<HostFacts['kvmDevice']> {
  try {
    await (await open(path, constants.O_RDWR)).close();
    return 'usable';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' || code === 'ENODEV' || code === 'ENXIO' ? 'missing' : 'forbidden';
  }
}

async function hasPvm(root: HostRoot): Promise<boolean> {
  const module = await access(join(root.sysDir, 'module/kvm_pvm')).then(
    () => true,
    () => false,
  );
  if (module) return true;
  const packed = await readFile(join(root.procDir, 'config.gz')).catch(() => undefined);
  const config = packed
    ? (await promisify(gunzip)(packed)).toString('latin1')
    : await readOptional(join(root.bootDir, `config-${release()}`));
  return /^CONFIG_KVM_PVM=[ym]$/m.test(config);
}

/** Empty where there is no such file: not every kernel has each of these. */
async function readOptional(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}
