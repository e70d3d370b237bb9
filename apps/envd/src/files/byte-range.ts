import { WrennError } from '@wrenn/protocol/errors';

export interface ByteRange {
  /** First byte. */
  readonly start: number;
  /** Last byte, included. */
  readonly end: number;
}

/**
 * The part of a file that a Range header asks for (RFC 9110, 14.2). Undefined where the whole file is the answer: other
 * units, malformed headers, and several ranges at once, which a server may ignore. Fails with `range_not_satisfiable`.
 */
export function parseRange(header: string | undefined, size: number): ByteRange | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header?.trim() ?? '');
  if (match === null) return undefined;
  const [, first = '', last = ''] = match;
  if (first === '' && last === '') return undefined;
  if (first === '') {
    const suffix = Number(last);
    if (suffix === 0 || size === 0) throw new WrennError('range_not_satisfiable', { size });
    return { start: Math.max(0, size - suffix), end: size - 1 };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return undefined;
  if (start >= size) throw new WrennError('range_not_satisfiable', { size });
  return { start, end: last === '' ? size - 1 : Math.min(Number(last), size - 1) };
}
