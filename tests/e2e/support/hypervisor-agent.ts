// An agent of the test's own: boots the VM that its parent asks for, tells its record, and stays until it is killed.
import { chooseHypervisor } from '@wrenn/hypervisor/choose-hypervisor';
import type { VmSpec } from '@wrenn/hypervisor/hypervisor';

process.on('message', async (spec: VmSpec) => {
  const { hypervisor } = await chooseHypervisor();
  const vm = await hypervisor.boot(spec, AbortSignal.timeout(60_000));
  process.send?.(vm.process);
});
