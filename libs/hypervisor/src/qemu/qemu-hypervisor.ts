import { WrennError } from '@wrenn/protocol/errors';
import type {
  Hypervisor,
  HypervisorIdentity,
  MemorySnapshot,
  RunningVm,
  VmProcessRecord,
  VmSpec,
} from '../hypervisor.ts';
import { hasArgument, isRunning, killProcess } from '../vm-process.ts';
import { type Launched, launchQemu, vmFiles } from './launch.ts';
import { type QemuProgram, vmNameArgument } from './machine.ts';
import { lastLogLine, QemuVm } from './qemu-vm.ts';
import { QmpClient } from './qmp-client.ts';

const COMMAND_TIMEOUT_MS = 10_000;

/** Runs VMs with one QEMU program. */
export function createQemuHypervisor(program: QemuProgram): Hypervisor {
  return {
    identity: program.identity,
    boot: (spec, signal) => start(program, spec, undefined, signal),
    restore: (spec, snapshot, signal) => {
      const mismatch = findMismatch(program.identity, spec, snapshot);
      if (mismatch) return Promise.reject(new WrennError('vm_start_failed', { problem: mismatch }));
      return start(program, spec, snapshot, signal);
    },
    adopt,
  };
}

async function start(
  program: QemuProgram,
  spec: VmSpec,
  snapshot: MemorySnapshot | undefined,
  signal: AbortSignal,
): Promise<RunningVm> {
  signal.throwIfAborted();
  let launched: Launched | undefined;
  let client: QmpClient | undefined;
  try {
    launched = await launchQemu(program, spec, snapshot);
    client = await QmpClient.open(launched.control, signal);
    await untilRunning(client, signal);
    const record = { ...launched.key, controlSocket: vmFiles(spec.runDir).controlSocket, identity: program.identity };
    return await QemuVm.create({
      id: spec.id,
      record,
      shape: spec.shape,
      client,
      standing: false,
      child: launched.child,
    });
  } catch (cause) {
    client?.close();
    launched?.control.destroy();
    if (launched) await killProcess(launched.key);
    signal.throwIfAborted();
    if (!launched) throw new WrennError('vm_start_failed', { problem: 'its files are not usable' }, { cause });
    const said = await lastLogLine(vmFiles(spec.runDir).log);
    throw new WrennError(
      'vm_start_failed',
      { problem: 'the hypervisor ended before the VM ran' },
      { cause: new Error(`QEMU said: ${said || 'nothing'}`, { cause }) },
    );
  }
}

/** A VM that loads a snapshot runs by itself once it is loaded. */
async function untilRunning(client: QmpClient, signal: AbortSignal): Promise<void> {
  const running = Promise.withResolvers<void>();
  const unsubscribe = client.subscribe((event) => {
    if (event.event === 'RESUME') running.resolve();
  });
  const onAbort = () => running.reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    const { status } = await client.execute('query-status', undefined, { signal, timeoutMs: COMMAND_TIMEOUT_MS });
    if (status === 'running') return;
    await Promise.race([running.promise, client.closed.then((reason) => Promise.reject(reason))]);
  } finally {
    unsubscribe();
    signal.removeEventListener('abort', onAbort);
    running.promise.catch(() => {});
  }
}

/** Why this snapshot does not fit, for a person; undefined where it does. */
function findMismatch(own: HypervisorIdentity, spec: VmSpec, snapshot: MemorySnapshot): string | undefined {
  for (const part of ['kind', 'version', 'accelerator', 'arch', 'cpu'] as const) {
    if (own[part] !== snapshot.identity[part]) {
      return `its snapshot was made with another ${part} (${snapshot.identity[part]}) than this host's (${own[part]})`;
    }
  }
  const { vcpus, memoryMb } = snapshot.shape;
  if (vcpus === spec.shape.vcpus && memoryMb === spec.shape.memoryMb) return undefined;
  return `its snapshot has ${vcpus} vCPUs and ${memoryMb} MiB`;
}

async function adopt(id: string, record: VmProcessRecord, signal: AbortSignal): Promise<RunningVm | undefined> {
  signal.throwIfAborted();
  // After a restart of the host another process may have the same pid and, by chance, the same start time.
  if (!isRunning(record) || !(await hasArgument(record, vmNameArgument(id)))) return undefined;
  let client: QmpClient | undefined;
  try {
    client = await QmpClient.connect(record.controlSocket, signal);
    const memory = await client.execute('query-memory-size-summary', undefined, {
      signal,
      timeoutMs: COMMAND_TIMEOUT_MS,
    });
    const cpus = await client.execute('query-cpus-fast', undefined, { signal, timeoutMs: COMMAND_TIMEOUT_MS });
    // One that stands still for a full disk may do so between a pause and its end: only its agent knows, and resumes it.
    const { status } = await client.execute('query-status', undefined, { signal, timeoutMs: COMMAND_TIMEOUT_MS });
    const standing = status !== 'running';
    const shape = { vcpus: cpus.length, memoryMb: memory['base-memory'] / 1024 / 1024 };
    return await QemuVm.create({ id, record, shape, client, standing });
  } catch (error) {
    client?.close();
    if (!isRunning(record)) return undefined;
    throw error;
  }
}
