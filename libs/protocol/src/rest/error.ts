import { z } from 'zod';
import type { ErrorBody, ErrorCode, WrennError } from '../errors.ts';

/**
 * The error of every REST answer and WebSocket frame.
 *
 * `code` is one of the short codes that Wrenn's clients have known from the start and choose their exception by;
 * `reason` is the exact code of the error catalogue.
 */
export const restErrorSchema = z
  .object({
    code: z.string().meta({ description: 'Family of the error; what clients choose their exception by.' }),
    message: z.string().meta({ description: 'What happened, for a person.' }),
    reason: z.string().meta({ description: 'Exact code in the error catalogue.' }),
    remedy: z.string().meta({ description: 'What to do next.' }),
    retryable: z.boolean().meta({ description: 'Whether the same request can succeed later without a change.' }),
    details: z.record(z.string(), z.union([z.string(), z.number()])).optional(),
    request_id: z.string().optional().meta({ description: 'Also in the header X-Request-Id and in the logs.' }),
  })
  .meta({ id: 'Error' });

export type RestError = z.output<typeof restErrorSchema>;

export const errorResponseSchema = z.object({ error: restErrorSchema }).meta({ id: 'ErrorResponse' });

/** Codes of the catalogue whose family has another name than they themselves. */
const FAMILY = {
  invalid_shape: 'invalid_request',
  upgrade_required: 'invalid_request',
  command_not_found: 'invalid_request',
  delivery_failed: 'invalid_request',
  wrong_file_type: 'invalid_request',
  invalid_credentials: 'unauthorized',
  wrong_code: 'unauthorized',
  passkey_refused: 'unauthorized',
  insufficient_role: 'forbidden',
  insufficient_scope: 'forbidden',
  login_required: 'forbidden',
  origin_refused: 'forbidden',
  owner_immutable: 'invalid_state',
  invitation_for_other: 'forbidden',
  last_admin: 'invalid_state',
  two_factor_on: 'invalid_state',
  two_factor_off: 'invalid_state',
  idempotency_key_used: 'conflict',
  request_in_progress: 'conflict',
  answer_not_kept: 'conflict',
  headers_too_large: 'invalid_request',
  refused_by_extension: 'forbidden',
  host_not_found: 'not_found',
  host_deleted: 'not_found',
  host_state: 'invalid_state',
  registration_refused: 'unauthorized',
  host_credential_refused: 'unauthorized',
  host_credential_shared: 'conflict',
  byoc_off: 'forbidden',
  capsule_not_found: 'not_found',
  template_not_found: 'not_found',
  path_not_found: 'not_found',
  process_not_found: 'not_found',
  permission_denied_in_guest: 'forbidden',
  guest_unreachable: 'agent_error',
  guest_protocol_error: 'agent_error',
  input_lost: 'agent_error',
  port_closed: 'agent_error',
  vm_start_failed: 'agent_error',
} as const satisfies Partial<Record<ErrorCode, string>>;

function familyOf(code: ErrorCode): string {
  return code in FAMILY ? FAMILY[code as keyof typeof FAMILY] : code;
}

/** The REST form of an error; `WrennError.fromBody` reads it back. */
export function toRestError(error: WrennError, requestId?: string): RestError {
  const { code, message, remedy, retryable, details }: ErrorBody = error.toBody();
  return {
    code: familyOf(code),
    message,
    reason: code,
    remedy,
    retryable,
    ...(details === undefined ? {} : { details: { ...details } }),
    ...(requestId === undefined ? {} : { request_id: requestId }),
  };
}
