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
  /** Warm and without a tenant. An agent that finds it at its start ends it. */
  'pooled',
  /** Being made. An agent that finds it at its start undoes it: the guest's settings are not kept on disk. */
  'creating',
  /** The guest has confirmed its settings. */
  'running',
  /**
   * Its generation `pausing` is being written; its vCPUs stand still or soon will. An agent that finds it at its start
   * ends it where that generation is complete, and lets it run on where it is not.
   */
  'pausing',
  /** Being removed. An agent that finds it at its start finishes that. */
  'destroying',
  /** Ended by itself; holds nothing but its reason and the end of its console. */
  'failed',
]);

/** What a guest is told where a request leaves something open. */
export const guestDefaultsSchema = z.object({
  user: z.string(),
  workdir: z.string(),
  envs: z.record(z.string(), z.string()),
});

export type GuestDefaults = z.infer<typeof guestDefaultsSchema>;

/** A file whose content is known; `sha256` is what snapshots/file-sum.ts computes. */
export const fileSumSchema = z.object({ sizeBytes: z.number().int(), mtimeMs: z.number(), sha256: z.string() });

const trace = z.array(z.object({ name: z.string(), durationMs: z.number(), offsetMs: z.number().default(0) }));

/** What the journal keeps of one VM. It holds the guest's token, as the VM's memory does: only root reads either. */
export const vmRecordSchema = z.object({
  version: z.literal(2),
  /** Names the VM's folder, process and cgroup. */
  vmId: z.string(),
  /** The capsule that it is; empty while it waits for one. */
  id: z.string(),
  phase: vmPhase,
  template: z.string(),
  imageSha256: z.string(),
  /** The user's snapshot that it was made of, in place of the template's own. */
  snapshotId: z.string().optional(),
  shape: z.object({ vcpus: z.number().int(), memoryMb: z.number().int() }),
  /** What the caller asked for; 0 is the template's size. */
  requestedDiskMb: z.number().int(),
  diskMb: z.number().int(),
  /** Layers below its own disk, by their names in its folder, from the base up. */
  layers: z.array(z.string()),
  /** How many of them it shares with others; those above are its own earlier generations. */
  sharedLayers: z.number().int(),
  /** What is known of the content of its layers and its blank overlay; they are on stable storage. */
  layerSums: z.record(z.string(), fileSumSchema),
  /** Hash of the settings, to tell a repeated request from another one. */
  initDigest: z.string(),
  /** What the guest agent demands of every request. */
  accessToken: z.string(),
  defaults: guestDefaultsSchema,
  /** The generation that it was started from; 0: it never slept. */
  generation: z.number().int(),
  /** Its disk was booted without the memory of that generation. */
  memoryDiscarded: z.boolean(),
  /** The generation that is being written. */
  pausing: z.number().int().optional(),
  /** Network slot, from the moment it is the VM's. */
  slot: z.number().int().optional(),
  process: processRecord.optional(),
  reason: z.object({ code: z.string(), text: z.string() }).optional(),
  /** RFC 3339. */
  createdAt: z.string(),
  startedAt: z.string().optional(),
  versions: z.record(z.string(), z.string()),
  trace,
});

export type VmRecord = z.infer<typeof vmRecordSchema>;
