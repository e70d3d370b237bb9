import { errorResponseSchema, type RestError } from '@wrenn/protocol/rest/error';
import { CliError, EXIT } from '../cli-error.ts';

/** The API answered with an error. */
export class ApiError extends CliError {
  /** Code in the error catalogue, e.g. `capsule_not_found`; `unknown` when the answer was not one of Wrenn's. */
  readonly reason: string;
  readonly details: Readonly<Record<string, string | number>>;

  constructor(error: Pick<RestError, 'message' | 'remedy' | 'reason' | 'request_id' | 'details'>) {
    super(error.message, remedyOf(error), { exitCode: exitCodeOf(error.reason) });
    this.reason = error.reason;
    this.details = error.details ?? {};
  }
}

/** As shells do for a command that they cannot find or start. */
const EXIT_NO_COMMAND = 127;

function exitCodeOf(reason: string): number {
  return reason === 'command_not_found' ? EXIT_NO_COMMAND : EXIT.error;
}

type RemedyParts = Pick<RestError, 'remedy' | 'reason' | 'request_id' | 'details'>;

/** The remedy in the words of this command, where the API's is in those of the API. */
function remedyOf({ remedy, reason, request_id, details }: RemedyParts): string {
  const id = details?.id;
  if (reason === 'internal_error' && request_id !== undefined) return `${remedy} (request ${request_id})`;
  if (id === undefined) return remedy;
  const { [reason]: words } = REMEDIES;
  return words?.(String(id)) ?? remedy;
}

const REMEDIES: Readonly<Partial<Record<string, (id: string) => string>>> = {
  invalid_state: (id) => `\`wrenn inspect ${id}\` shows how it stands; \`wrenn pause\` and \`wrenn resume\` change it.`,
  snapshot_damaged: (id) =>
    `\`wrenn verify ${id}\` says which files; \`wrenn resume --discard-memory ${id}\` boots its disk without the memory.`,
  snapshot_incompatible: (id) =>
    `Resume it on a host like the one it slept on, or boot its disk alone: \`wrenn resume --discard-memory ${id}\`.`,
};

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
