import { fromJson, toJson } from '@bufbuild/protobuf';
import { StructSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { codeFromString } from '@connectrpc/connect/protocol-connect';
import { WrennError } from './errors.ts';

/**
 * The Connect error that carries a WrennError to another program: its code is the catalogue's, its message the user's,
 * and a `google.protobuf.Struct` detail holds `{code, details}`. The cause stays here, for the log.
 */
export function toConnectError(error: WrennError): ConnectError {
  const carried = fromJson(StructSchema, { code: error.code, details: { ...error.details } });
  const code = codeFromString(error.connect) ?? Code.Internal;
  return new ConnectError(error.message, code, undefined, [{ desc: StructSchema, value: carried }], error);
}

/**
 * The WrennError that a Connect error carries. One that came without, because the connection broke or the library
 * refused the call, becomes the entry of the catalogue that is nearest to its Connect code. The Connect error stays
 * as the cause.
 */
export function fromConnectError(error: ConnectError): WrennError {
  for (const detail of error.findDetails(StructSchema)) {
    const body = toJson(StructSchema, detail);
    if (typeof body !== 'object' || body === null || Array.isArray(body)) continue;
    const carried = WrennError.fromBody(body);
    if (carried) return new WrennError(carried.code, carried.details, { cause: error });
  }
  const cause = { cause: error };
  switch (error.code) {
    case Code.Unavailable:
    case Code.Unauthenticated:
    case Code.PermissionDenied:
      return new WrennError('host_unavailable', {}, cause);
    case Code.DeadlineExceeded:
      return new WrennError('deadline_exceeded', { what: 'The call', timeout_ms: 'the allowed number of' }, cause);
    case Code.InvalidArgument:
      return new WrennError('invalid_request', { problem: error.rawMessage }, cause);
    default:
      return new WrennError('internal_error', {}, cause);
  }
}
