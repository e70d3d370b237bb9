import type { HypervisorIdentity } from '@wrenn/hypervisor/hypervisor';
import { z } from 'zod';
import { hypervisorIdentitySchema } from '../journal/hypervisor-identity.ts';
import { fileSumSchema, guestDefaultsSchema } from '../journal/vm-record.ts';
import { templateInputsSchema } from '../templates/template-key.ts';

/** Raised when an older version could not use what this one writes. */
export const MANIFEST_VERSION = 2;

/** What a snapshot's folder says of itself. It holds the guest's token, as the memory beside it does: only root reads either. */
export const snapshotManifestSchema = z.object({
  version: z.literal(MANIFEST_VERSION),
  kind: z.enum(['template', 'generation', 'snapshot']),
  /** Key of the template snapshot, id of the capsule, or id of the user's snapshot. */
  id: z.string(),
  /** Counts the sleeps of a capsule; 1 for the other kinds. */
  generation: z.number().int().min(1),
  /** Of a template's snapshot: all that it depends on. */
  inputs: templateInputsSchema.optional(),
  hypervisor: hypervisorIdentitySchema,
  template: z.string(),
  imageSha256: z.string(),
  /** The user's snapshot that the capsule was made of. */
  snapshotId: z.string().optional(),
  shape: z.object({ vcpus: z.number().int(), memoryMb: z.number().int() }),
  diskMb: z.number().int(),
  requestedDiskMb: z.number().int(),
  /** From the base up. */
  layers: z.array(z.string().regex(/^\d+\.(raw|qcow2)$/)),
  sharedLayers: z.number().int(),
  /** What the guest agent in the memory demands; empty: nothing yet. */
  guestToken: z.string(),
  defaults: guestDefaultsSchema,
  versions: z.record(z.string(), z.string()),
  /** RFC 3339. */
  createdAt: z.string(),
  /** When the capsule was made. */
  capsuleCreatedAt: z.string().optional(),
  /** By path inside the folder. */
  files: z.record(z.string(), fileSumSchema),
});

export type SnapshotManifest = z.infer<typeof snapshotManifestSchema>;

/** Why a host with this hypervisor cannot restore the memory, for a person; undefined where it can. */
export function findMismatch(own: HypervisorIdentity, { hypervisor }: SnapshotManifest): string | undefined {
  for (const part of ['kind', 'version', 'accelerator', 'arch', 'cpu'] as const) {
    if (own[part] !== hypervisor[part]) {
      return `it was saved with the hypervisor's ${part} ${hypervisor[part]}, and its host has ${own[part]}`;
    }
  }
  return undefined;
}
