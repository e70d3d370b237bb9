import { CliError, EXIT } from '../cli-error.ts';

/** One side of a copy. */
export type Location =
  | { readonly kind: 'local'; readonly path: string }
  /** `-`: our standard input or output. */
  | { readonly kind: 'stream' }
  /** `capsule` is what the person wrote: an id or the beginning of one. */
  | { readonly kind: 'capsule'; readonly capsule: string; readonly path: string };

/**
 * Reads `path`, `id:path` or `-`. What stands before the first colon is an id when it holds only letters, digits and
 * dashes; `./a:b` is a local file.
 */
export function parseLocation(text: string): Location {
  if (text === '-') return { kind: 'stream' };
  const match = /^([a-z0-9-]+):(.*)$/s.exec(text);
  if (!match) {
    if (text === '') throw new CliError('A path is empty.', undefined, { exitCode: EXIT.usage });
    return { kind: 'local', path: text };
  }
  return { kind: 'capsule', capsule: match[1] ?? '', path: match[2] || '.' };
}

/** A copy between this machine and a capsule, one way or the other. */
export type Copy =
  | { readonly direction: 'upload'; readonly from: LocalSide; readonly to: CapsuleSide }
  | { readonly direction: 'download'; readonly from: CapsuleSide; readonly to: LocalSide };

export type LocalSide = Extract<Location, { kind: 'local' | 'stream' }>;
export type CapsuleSide = Extract<Location, { kind: 'capsule' }>;

/** @throws CliError unless exactly one side is in a capsule. */
export function planCopy(from: Location, to: Location): Copy {
  if (from.kind === 'capsule' && to.kind !== 'capsule') return { direction: 'download', from, to };
  if (from.kind !== 'capsule' && to.kind === 'capsule') return { direction: 'upload', from, to };
  throw new CliError(
    from.kind === 'capsule' ? 'Both paths are in capsules.' : 'Neither path is in a capsule.',
    'Write one of them as <id>:<path>, for example `wrenn cp notes.txt cl-1a2b:/tmp/`.',
    { exitCode: EXIT.usage },
  );
}
