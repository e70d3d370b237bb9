import { chooseHypervisor, NoHypervisorError, type Finding as Reason } from '@wrenn/hypervisor/choose-hypervisor';
import { type Finding, fail, ok, warn } from './finding.ts';

/** What the host agent would run VMs with, and why. */
export async function checkVirtualisation(): Promise<Finding[]> {
  try {
    const { hypervisor, explanation } = await chooseHypervisor({ env: process.env });
    const findings = explanation.map(toFinding);
    if (hypervisor.identity.accelerator === 'kvm') return findings;
    return [
      ...findings,
      warn(
        'speed',
        'without hardware virtualisation everything works, but guests compute many times slower',
        'Use a machine with KVM, or one that allows nested virtualisation, where speed matters.',
      ),
    ];
  } catch (error) {
    if (error instanceof NoHypervisorError) return error.explanation.map(toFinding);
    throw error;
  }
}

function toFinding({ what, ok: good, detail, remedy }: Reason): Finding {
  if (!good) return fail(what, detail, remedy ?? 'Set WRENN_HYPERVISOR and WRENN_ACCEL to what this machine has.');
  return remedy === undefined ? ok(what, detail) : warn(what, detail, remedy);
}
