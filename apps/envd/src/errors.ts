import { WrennError } from '@wrenn/protocol/errors';
import { describeError, log } from './log.ts';

/**
 * Header of a REST answer that carries the catalogue's error as JSON; the body has E2B's shape, which has no place for
 * it.
 */
export const ERROR_HEADER = 'wrenn-error';

/** The error itself where it is in the catalogue; anything else is logged and becomes `internal_error`. */
export function toWrennError(error: unknown): WrennError {
  if (error instanceof WrennError) return error;
  log('error', 'unexpected error', { error: describeError(error) });
  return new WrennError('internal_error', {}, { cause: error });
}

/** JSON of an error in ASCII, because headers carry nothing else. */
export function errorHeader(error: WrennError): string {
  const { code, details } = error.toBody();
  return JSON.stringify({ code, ...(details ? { details } : {}) }).replaceAll(
    /[\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** The name of the errno behind an error of Node or of a system call, such as `ENOENT`. */
export function errnoOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/**
 * The catalogue's error for a refused file operation.
 *
 * @param path what the user named
 * @param action what was tried, to fill "may not {action} {path}"
 */
export function fileError(error: unknown, path: string, action: string): WrennError {
  if (error instanceof WrennError) return error;
  const options = { cause: error };
  switch (errnoOf(error)) {
    case 'ENOENT':
      return new WrennError('path_not_found', { path }, options);
    case 'EEXIST':
    case 'ENOTEMPTY':
      return new WrennError('conflict', { what: path }, options);
    case 'ENOTDIR':
      return new WrennError('wrong_file_type', { path, actual: 'no directory', expected: 'a directory' }, options);
    case 'EISDIR':
      return new WrennError('wrong_file_type', { path, actual: 'a directory', expected: 'a file' }, options);
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new WrennError('permission_denied_in_guest', { action, path }, options);
    case 'ENOSPC':
    case 'EDQUOT':
      return new WrennError('guest_disk_full', {}, options);
    case 'ELOOP':
      return new WrennError('invalid_request', { problem: `${path} is a loop of symbolic links` }, options);
    case 'EXDEV':
      return new WrennError('invalid_request', { problem: `${path} is on another file system` }, options);
    case 'ENAMETOOLONG':
    case 'EINVAL':
    case 'ERR_INVALID_ARG_VALUE':
    case 'EBUSY':
    case 'ETXTBSY':
    case 'ENXIO':
      return new WrennError('invalid_request', { problem: `cannot ${action} ${path}: ${errnoOf(error)}` }, options);
    default:
      return toWrennError(error);
  }
}
