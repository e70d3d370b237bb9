import { errorResponseSchema, type RestError } from '@wrenn/protocol/rest/error';
import { CliError, EXIT } from '../cli-error.ts';

/** The API answered with an error. */
export class ApiError extends CliError {
  /** Code in the error catalogue, e.g. `capsule_not_found`; `unknown` when the answer was not one of Wrenn's. */
  readonly reason: string;

  constructor(error: Pick<RestError, 'message' | 'remedy' | 'reason' | 'request_id'>) {
    super(error.message, withRequestId(error), { exitCode: exitCodeOf(error.reason) });
    this.reason = error.reason;
  }
}

/** As shells do for a command that they cannot find or start. */
const EXIT_NO_COMMAND = 127;

function exitCodeOf(reason: string): number {
  return reason === 'command_not_found' ? EXIT_NO_COMMAND : EXIT.error;
}

function withRequestId({ remedy, reason, request_id }: Pick<RestError, 'remedy' | 'reason' | 'request_id'>): string {
  return reason === 'internal_error' && request_id !== undefined ? `${remedy} (request ${request_id})` : remedy;
}

/** The error that an answer which is not 2xx stands for. Reads its body. */
export async function readApiError(response: Response): Promise<ApiError> {
  const text = await response.text();
  return parseApiError(response.status, text, new URL(response.url).origin);
}

/** The same from a status and a body. */
export function parseApiError(status: number, text: string, origin: string): ApiError {
  const parsed = errorResponseSchema.safeParse(parseJson(text));
  if (parsed.success) return new ApiError(parsed.data.error);
  return new ApiError({
    message: `${origin} answered with status ${status}, in a form that is not Wrenn's.`,
    remedy: 'Check that WRENN_BASE_URL is the address of a Wrenn API, with no proxy in between that answers itself.',
    reason: 'unknown',
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
