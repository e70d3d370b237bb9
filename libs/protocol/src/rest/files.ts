import { z } from 'zod';

/** Largest file that `files/write` takes and `files/read` gives, in bytes. `files/stream/*` has no limit. */
export const FILE_WRITE_LIMIT_BYTES = 100 * 1024 * 1024;

export const guestPathSchema = z
  .string()
  .min(1)
  .max(4096)
  .regex(/^[^\0]*$/, 'must not hold a NUL character')
  .meta({ description: "Path in the capsule. A relative one starts at the user's home directory." });

const user = z.string().max(64).optional().meta({ description: "User in the guest. Default: the template's." });

export const readFileRequestSchema = z.object({ path: guestPathSchema, user }).meta({ id: 'ReadFileRequest' });

export const listDirRequestSchema = z
  .object({
    path: guestPathSchema,
    depth: z.int().min(0).max(1000).nullish().meta({ description: 'Levels below path; 0 counts as 1.' }),
    user,
  })
  .meta({ id: 'ListDirRequest' });

export const mkdirRequestSchema = z.object({ path: guestPathSchema, user }).meta({ id: 'MkdirRequest' });

export const removeRequestSchema = z.object({ path: guestPathSchema, user }).meta({ id: 'RemoveRequest' });

/**
 * Fields of the multipart body of `files/write` and `files/stream/write`, in this order. The path may also be given as
 * the query parameter `path`, and then the body may be the bare bytes with the type application/octet-stream.
 */
export const writeFileQuerySchema = z.object({ path: guestPathSchema.optional(), user });

export const fileEntrySchema = z
  .object({
    name: z.string(),
    path: z.string(),
    type: z.enum(['file', 'directory', 'symlink', 'other']),
    size: z.int(),
    mode: z.int().meta({ description: 'Permission bits.' }),
    permissions: z.string().meta({ examples: ['-rwxr-xr-x'] }),
    owner: z.string(),
    group: z.string(),
    modified_at: z.int().meta({ description: 'Unix time in seconds.' }),
    symlink_target: z.string().nullable(),
  })
  .meta({ id: 'FileEntry' });

export type FileEntry = z.output<typeof fileEntrySchema>;

export const listDirResponseSchema = z.object({ entries: z.array(fileEntrySchema) }).meta({ id: 'ListDirResponse' });

export const mkdirResponseSchema = z.object({ entry: fileEntrySchema }).meta({ id: 'MkdirResponse' });
