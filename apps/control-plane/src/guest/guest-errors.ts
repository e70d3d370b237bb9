import type { IncomingMessage } from 'node:http';
import { Code, ConnectError } from '@connectrpc/connect';
import { fromConnectError } from '@wrenn/protocol/connect-errors';
import { type ErrorCode, type ErrorDetails, WrennError } from '@wrenn/protocol/errors';

/** What a call was about, to name it in an error. */
export interface GuestCall {
  readonly capsuleId: string;
  readonly path?: string;
  /** Pid or tag of a process. */
  readonly selector?: string;
  readonly command?: string;
  /** What took too long, and how long it might take. */
  readonly timeout?: { readonly what: string; readonly ms: number };
}

/**
 * Errors that envd may hand on to the user. A guest belongs to whoever runs code in it, so it must not be able to
 * speak for Wrenn: anything else from it is `guest_protocol_error`.
 */
const TAKEN_FROM_GUEST: readonly ErrorCode[] = [
  'invalid_request',
  'path_not_found',
  'process_not_found',
  'command_not_found',
  'conflict',
  'wrong_file_type',
  'permission_denied_in_guest',
  'output_expired',
  'too_large',
  'deadline_exceeded',
  'guest_disk_full',
  'guest_limit_reached',
  'process_input_closed',
];
const MAX_DETAIL_LENGTH = 4096;

/** The error of the catalogue for what a call to envd threw. */
export function toGuestError(error: unknown, call: GuestCall): WrennError {
  const known = findWrennError(error);
  if (known) return known;
  if (!(error instanceof ConnectError)) return unreachable(error, call);
  const carried = error.details.length > 0 ? fromConnectError(error) : undefined;
  return (carried && takeFromGuest(carried, error, call)) ?? fromCode(error, call);
}

/**
 * The same for a stream that had begun. An error without envd's own details is then of the connection, whatever the
 * transport makes of a stream that was cut off in the middle.
 */
export function toStreamError(error: unknown, call: GuestCall): WrennError {
  const isOfConnection = error instanceof ConnectError && error.details.length === 0;
  return isOfConnection && !findWrennError(error) ? unreachable(error, call) : toGuestError(error, call);
}

/** The error of the catalogue for an HTTP answer of envd that is not a success. */
export function toGuestHttpError(answer: IncomingMessage, call: GuestCall): WrennError {
  const cause = { cause: new Error(`envd answered ${answer.statusCode}`) };
  const carried = parseHeader(answer.headers['wrenn-error']);
  const taken = carried && takeFromGuest(carried, cause.cause, call);
  if (taken) return taken;
  const path = call.path ?? '';
  switch (answer.statusCode) {
    case 404:
      return new WrennError('path_not_found', { path }, cause);
    case 403:
      return new WrennError('permission_denied_in_guest', { action: 'use', path }, cause);
    case 507:
      return new WrennError('guest_disk_full', {}, cause);
    default:
      return new WrennError('guest_protocol_error', { id: call.capsuleId }, cause);
  }
}

function takeFromGuest(carried: WrennError, cause: Error, call: GuestCall): WrennError | undefined {
  const { code } = carried;
  // For the API this is a wrong field; its own 401 is about its own key.
  if (code === 'unknown_user') return new WrennError('invalid_request', { problem: carried.message }, { cause });
  if (!TAKEN_FROM_GUEST.includes(code)) return undefined;
  const { timeout } = call;
  const details = code === 'deadline_exceeded' && timeout ? { what: timeout.what, timeout_ms: timeout.ms } : undefined;
  return new WrennError(code, details ?? shorten(carried.details), { cause });
}

function fromCode(error: ConnectError, call: GuestCall): WrennError {
  const cause = { cause: error };
  switch (error.code) {
    case Code.NotFound:
      return call.selector !== undefined
        ? new WrennError('process_not_found', { selector: call.selector }, cause)
        : new WrennError('path_not_found', { path: call.path ?? call.command ?? '' }, cause);
    case Code.AlreadyExists:
      return new WrennError('conflict', { what: call.path ?? call.selector ?? 'It' }, cause);
    case Code.InvalidArgument:
      return new WrennError('invalid_request', { problem: error.rawMessage.slice(0, MAX_DETAIL_LENGTH) }, cause);
    case Code.PermissionDenied:
      return new WrennError('permission_denied_in_guest', { action: 'use', path: call.path ?? '' }, cause);
    case Code.DeadlineExceeded: {
      const { what, ms } = call.timeout ?? { what: 'The guest agent', ms: 0 };
      return new WrennError('deadline_exceeded', { what, timeout_ms: ms }, cause);
    }
    case Code.Internal:
    case Code.Unimplemented:
    case Code.DataLoss:
    case Code.FailedPrecondition:
    case Code.OutOfRange:
      return new WrennError('guest_protocol_error', { id: call.capsuleId }, cause);
    default:
      return unreachable(error, call);
  }
}

function unreachable(cause: unknown, call: GuestCall): WrennError {
  return new WrennError('guest_unreachable', { id: call.capsuleId, problem: 'the connection to it broke' }, { cause });
}

/** An error of ours on the way to the guest: the host is silent, the port is closed. */
function findWrennError(error: unknown): WrennError | undefined {
  for (let at = error; at instanceof Error; at = at.cause) if (at instanceof WrennError) return at;
  return undefined;
}

function parseHeader(header: string | string[] | undefined): WrennError | undefined {
  if (typeof header !== 'string') return undefined;
  try {
    const body: unknown = JSON.parse(header);
    return typeof body === 'object' && body !== null ? WrennError.fromBody(body) : undefined;
  } catch {
    return undefined;
  }
}

function shorten(details: ErrorDetails): ErrorDetails {
  return Object.fromEntries(
    Object.entries(details).map(([key, value]) => [
      key,
      typeof value === 'string' ? value.slice(0, MAX_DETAIL_LENGTH) : value,
    ]),
  );
}
