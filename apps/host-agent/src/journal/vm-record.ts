import { z } from 'zod';
import { hypervisorIdentitySchema } from './hypervisor-identity.ts';

const processRecord = z.object({
  pid: z.number().int(),
  startTicks: z.string(),
  controlSocket: z.string(),
  identity: hypervisorIdentitySchema,
});

/** Where a VM is in its life. Written before the step that it names is begun. */
const vmPhase = z.enum([
  /** Being made. An agent that finds it at its start undoes it: the guest's settings are not kept on disk. */
  'creating',
  /** The guest has confirmed its settings. */
  'running',
  /** Being removed. An agent that finds it at its start finishes that. */
  'destroying',
  /** Ended by itself; holds nothing but its reason and the end of its console. */
  'failed',
]);

/** What the journal keeps of one VM. No secret is in it. */
export const vmRecordSchema = z.object({
  version: z.literal(1),
  id: z.string(),
  phase: vmPhase,
  template: z.string(),
  imageSha256: z.string(),
  shape: z.object({ vcpus: z.number().int(), memoryMb: z.number().int() }),
  /** What the caller asked for; 0 is the template's size. */
  requestedDiskMb: z.number().int(),
  diskMb: z.number().int(),
  /** Hash of the settings, to tell a repeated request from another one. */
  initDigest: z.string(),
  /** Network slot, from the moment it is the VM's. */
  slot: z.number().int().optional(),
  process: processRecord.optional(),
  reason: z.object({ code: z.string(), text: z.string() }).optional(),
  /** RFC 3339. */
  createdAt: z.string(),
  startedAt: z.string().optional(),
  versions: z.record(z.string(), z.string()),
  trace: z.array(z.object({ name: z.string(), durationMs: z.number() })),
});

export type VmRecord = z.infer<typeof vmRecordSchema>;
