import { createHash } from 'node:crypto';
import { z } from 'zod';
import { CHUNK_BYTES } from './chunk.ts';
import { storeFailed } from './object-store.ts';

const FORMAT = 1;
const sum = z.string().regex(/^[0-9a-f]{64}$/);

/** A chunk that is not all zeroes; those are left out. */
const storedChunk = z.object({
  /** The chunk's place in the file, counted in chunks. */
  chunk: z.int().nonnegative(),
  /** Where its stored bytes lie in the object. */
  offset: z.int().nonnegative(),
  /** Stored bytes. As long as the plain chunk: stored as it is. Shorter: a frame of zstd. */
  length: z.int().positive().max(CHUNK_BYTES),
  /** Of the plain bytes. */
  sha256: sum,
});

export type StoredChunk = z.infer<typeof storedChunk>;

const storedFile = z.object({
  /** Of the plain file, holes included. */
  sizeBytes: z.int().nonnegative(),
  /** Size of the object. */
  storedBytes: z.int().nonnegative(),
  chunks: z.array(storedChunk),
});

/** A file as one object of chunks, which follow one another without gaps, in the order of the file. */
export type StoredFile = z.infer<typeof storedFile>;

/** A path below the folder: no way up, no root, no empty name. */
const relativePath = z
  .string()
  .max(1024)
  .refine(
    (path) => !path.includes('\0') && path.split('/').every((name) => name !== '' && name !== '.' && name !== '..'),
  );

const hibernationIndex = z.object({
  format: z.literal(FORMAT),
  chunkBytes: z.literal(CHUNK_BYTES),
  manifest: z.base64(),
  files: z
    .array(
      z.discriminatedUnion('kind', [
        z.object({ kind: z.literal('own'), name: relativePath, object: relativePath, stored: storedFile }),
        z.object({ kind: z.literal('shared'), name: relativePath, sharedAs: sum }),
      ]),
    )
    .max(1000)
    .refine((files) =>
      files.every(
        ({ name }, place) => !files.some((other, at) => at !== place && `${other.name}/`.startsWith(`${name}/`)),
      ),
    ),
});

/** `{key}/index.json`: all that one hibernation is made of. */
export type HibernationIndex = Omit<z.infer<typeof hibernationIndex>, 'format' | 'chunkBytes'>;
export type IndexedFile = HibernationIndex['files'][number];

const sharedIndex = z.object({
  format: z.literal(FORMAT),
  chunkBytes: z.literal(CHUNK_BYTES),
  object: relativePath,
  stored: storedFile,
});

/** `shared/{sha256}/index.json`: which object beside it holds the file. */
export type SharedIndex = Omit<z.infer<typeof sharedIndex>, 'format' | 'chunkBytes'>;

/** Whether this may be the name of a file in a hibernation. */
export function isFileName(name: string): boolean {
  return relativePath.safeParse(name).success;
}

export function isSum(text: string): boolean {
  return sum.safeParse(text).success;
}

/** An index with a sum of its own, so that nobody believes half of one. */
export function encodeIndex(index: HibernationIndex | SharedIndex): Buffer {
  const content = { format: FORMAT, chunkBytes: CHUNK_BYTES, ...index };
  return Buffer.from(JSON.stringify({ sha256: sumOf(content), index: content }));
}

/** @throws object_store_failed */
export function decodeHibernationIndex(bytes: Buffer): HibernationIndex {
  const index = decode(bytes, hibernationIndex);
  for (const file of index.files) if (file.kind === 'own') checkLayout(file.stored);
  return index;
}

/** @throws object_store_failed */
export function decodeSharedIndex(bytes: Buffer): SharedIndex {
  const index = decode(bytes, sharedIndex);
  checkLayout(index.stored);
  return index;
}

/** The content stays as it was parsed: its sum depends on the order of its names. */
const envelope = z.object({ sha256: sum, index: z.unknown() });
const anyFormat = z.object({ format: z.int() });

function decode<Schema extends z.ZodType>(bytes: Buffer, schema: Schema): z.output<Schema> {
  let content: z.output<typeof envelope>;
  try {
    content = envelope.parse(JSON.parse(bytes.toString('utf8')));
  } catch (error) {
    throw storeFailed('it gave back something else than it was given', error);
  }
  if (sumOf(content.index) !== content.sha256) throw storeFailed('it gave back other bytes than it was given');
  const version = anyFormat.safeParse(content.index).data?.format;
  if (version !== undefined && version !== FORMAT)
    throw storeFailed('what it holds was written by another version of Wrenn');
  const result = schema.safeParse(content.index);
  if (!result.success) throw storeFailed('it gave back something else than it was given', result.error);
  return result.data;
}

/** Chunks must lie in the file, in order, and fill the object: reading relies on it. */
function checkLayout(file: StoredFile): void {
  let next = 0;
  let end = 0;
  for (const { chunk, offset, length } of file.chunks) {
    const plainBytes = Math.min(CHUNK_BYTES, file.sizeBytes - chunk * CHUNK_BYTES);
    if (chunk < next || offset !== end || length > plainBytes) {
      throw storeFailed('it gave back something else than it was given');
    }
    next = chunk + 1;
    end = offset + length;
  }
  if (end !== file.storedBytes) throw storeFailed('it gave back something else than it was given');
}

function sumOf(content: unknown): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}
