import { z } from 'zod';

/** HypervisorIdentity as it is kept in files. */
export const hypervisorIdentitySchema = z.object({
  kind: z.enum(['qemu', 'firecracker']),
  version: z.string(),
  accelerator: z.enum(['kvm', 'tcg']),
  arch: z.string(),
  cpu: z.string(),
});
