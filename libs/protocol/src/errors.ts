/** One entry of the error catalogue. */
interface ErrorEntry {
  /** HTTP status of the REST answer. */
  readonly http: number;
  /** Connect code of the same error between programs. */
  readonly connect: ConnectCodeName;
  /** What happened, for a person. `{name}` is replaced by the error's detail of that name. */
  readonly message: string;
  /** Why this happens. */
  readonly cause: string;
  /** What to do next. */
  readonly remedy: string;
  /** Whether the same request can succeed later without a change. */
  readonly retryable: boolean;
}

type ConnectCodeName =
  | 'canceled'
  | 'unknown'
  | 'invalid_argument'
  | 'deadline_exceeded'
  | 'not_found'
  | 'already_exists'
  | 'permission_denied'
  | 'resource_exhausted'
  | 'failed_precondition'
  | 'aborted'
  | 'out_of_range'
  | 'unimplemented'
  | 'internal'
  | 'unavailable'
  | 'data_loss'
  | 'unauthenticated';

/** Every error that a user of Wrenn can meet. Codes are stable; texts are not. */
export const ERROR_CATALOGUE = {
  invalid_request: {
    http: 400,
    connect: 'invalid_argument',
    message: 'The request is not valid: {problem}',
    cause: 'A field is missing, of the wrong type or out of range, or the body is not valid JSON.',
    remedy: 'Correct the field that the message names; /docs lists the shape of every request.',
    retryable: false,
  },
  invalid_shape: {
    http: 400,
    connect: 'invalid_argument',
    message: 'No host can give {vcpus} vCPUs and {memory_mb} MiB of memory to one capsule: {problem}',
    cause: 'The shape is outside the limits of the platform or of its largest host.',
    remedy: 'Ask for a smaller shape; `wrenn doctor` shows what this machine can give.',
    retryable: false,
  },
  unauthorized: {
    http: 401,
    connect: 'unauthenticated',
    message: 'This request carries no valid credential.',
    cause: 'The X-API-Key header is missing, unknown or revoked.',
    remedy: 'Send the key as X-API-Key; `wrenn up` prints the key of this machine.',
    retryable: false,
  },
  forbidden: {
    http: 403,
    connect: 'permission_denied',
    message: 'This credential may not do that.',
    cause: 'The key or role lacks the permission.',
    remedy: 'Use a credential with that permission.',
    retryable: false,
  },
  not_found: {
    http: 404,
    connect: 'not_found',
    message: '{what} was not found.',
    cause: 'There is nothing at this address, or it belongs to another team.',
    remedy: 'Check the path and the id.',
    retryable: false,
  },
  capsule_not_found: {
    http: 404,
    connect: 'not_found',
    message: 'There is no capsule {id}.',
    cause: 'The id is wrong, or the capsule belongs to another team.',
    remedy: 'List the capsules with GET /v1/capsules or `wrenn ls`.',
    retryable: false,
  },
  template_not_found: {
    http: 404,
    connect: 'not_found',
    message: 'There is no template named {name}.',
    cause: 'No host has a template of that name.',
    remedy: 'Use `minimal`, or build the template first.',
    retryable: false,
  },
  path_not_found: {
    http: 404,
    connect: 'not_found',
    message: 'There is no file or directory {path} in the capsule.',
    cause: 'The path does not exist in the guest.',
    remedy: 'Check the path; relative paths start at the default working directory.',
    retryable: false,
  },
  process_not_found: {
    http: 404,
    connect: 'not_found',
    message: 'There is no process {selector} in the capsule.',
    cause: 'The process has ended, or the pid or tag is wrong.',
    remedy: 'List the processes with GET /v1/capsules/{id}/processes.',
    retryable: false,
  },
  command_not_found: {
    http: 400,
    connect: 'not_found',
    message: 'The command {command} cannot be started: {problem}',
    cause: 'The program, its user or its working directory does not exist in the guest, or it is not executable.',
    remedy: 'Install the program in the capsule, or give its full path.',
    retryable: false,
  },
  conflict: {
    http: 409,
    connect: 'already_exists',
    message: '{what} exists already.',
    cause: 'Something of that name is there.',
    remedy: 'Use what is there, or choose another name.',
    retryable: false,
  },
  invalid_state: {
    http: 409,
    connect: 'failed_precondition',
    message: 'Capsule {id} is {status}; this needs a capsule that is {needed}.',
    cause: 'The capsule is in another state than this call needs.',
    remedy: 'Read the capsule and wait for, or bring about, the state that is needed.',
    retryable: true,
  },
  wrong_file_type: {
    http: 400,
    connect: 'invalid_argument',
    message: '{path} is {actual}, not {expected}.',
    cause: 'The path names another kind of file than this call works on.',
    remedy: 'Use the call for that kind of file.',
    retryable: false,
  },
  permission_denied_in_guest: {
    http: 403,
    connect: 'permission_denied',
    message: 'The guest user may not {action} {path}.',
    cause: "The file's owner and mode in the guest forbid it.",
    remedy: 'Use a path that the user owns, or do it as root.',
    retryable: false,
  },
  output_expired: {
    http: 410,
    connect: 'out_of_range',
    message: 'Output before byte {earliest} is no longer kept.',
    cause: 'The process wrote more than the guest keeps for re-attaching.',
    remedy: 'Attach from byte {earliest}, or write the output to a file.',
    retryable: false,
  },
  too_large: {
    http: 413,
    connect: 'resource_exhausted',
    message: 'The body is larger than {limit} bytes.',
    cause: 'The route has a limit for its body.',
    remedy: 'Use files/stream/write, which has no limit but the disk.',
    retryable: false,
  },
  rate_limited: {
    http: 429,
    connect: 'resource_exhausted',
    message: 'Too many requests.',
    cause: 'The credential or address is over its rate.',
    remedy: 'Wait for the time in Retry-After.',
    retryable: true,
  },
  internal_error: {
    http: 500,
    connect: 'internal',
    message: 'Something went wrong inside Wrenn.',
    cause: 'A defect. The log has the details under the request id.',
    remedy: 'Retry; if it stays, report it with the request id.',
    retryable: true,
  },
  host_tool_missing: {
    http: 500,
    connect: 'failed_precondition',
    message: 'The program {tool} is not installed on this machine.',
    cause: 'Wrenn uses it and did not find it on PATH.',
    remedy: 'Install it as root: apt-get install {package}',
    retryable: false,
  },
  package_download_failed: {
    http: 502,
    connect: 'unavailable',
    message: 'Packages could not be downloaded: {problem}',
    cause: 'The package archive or registry that this machine is set to use does not answer, or lacks the package.',
    remedy: 'Check that `apt-get update` and `npm ping` work on this machine, then run the command again.',
    retryable: true,
  },
  image_build_failed: {
    http: 500,
    connect: 'internal',
    message: 'The guest image could not be built ({step}): {problem}',
    cause: 'A step of the build failed. Nothing half-made was left in place.',
    remedy: 'Mend what the message names and run the command again; finished steps are not repeated.',
    retryable: true,
  },
  guest_unreachable: {
    http: 502,
    connect: 'unavailable',
    message: 'Capsule {id} does not answer: {problem}',
    cause: 'The guest died, hangs, or its network is cut.',
    remedy: 'Read the console with `wrenn logs`; destroy the capsule if it does not come back.',
    retryable: true,
  },
  guest_protocol_error: {
    http: 502,
    connect: 'internal',
    message: 'The guest agent of capsule {id} gave an answer that Wrenn does not understand.',
    cause: 'The template holds a guest agent of another version.',
    remedy: 'Rebuild the template, or update envd in it.',
    retryable: false,
  },
  vm_start_failed: {
    http: 502,
    connect: 'internal',
    message: 'The microVM could not be started: {problem}',
    cause: 'The hypervisor, the disk or the network of the host refused.',
    remedy: 'Run `wrenn doctor` on the host.',
    retryable: true,
  },
  capsule_ended: {
    http: 410,
    connect: 'failed_precondition',
    message: 'Capsule {id} has ended: {problem}',
    cause: 'Its guest shut down or crashed, or its host restarted.',
    remedy: 'Read its last output with `wrenn logs {id}`. If it ever slept, resume goes back to that; else destroy it.',
    retryable: false,
  },
  snapshot_damaged: {
    http: 409,
    connect: 'data_loss',
    message: 'The sleeping state of capsule {id} is damaged: {problem}',
    cause: "A file of its snapshot is missing or has other content than when it was written: the host's disk failed.",
    remedy: 'POST /v1/capsules/{id}/verify says which files; resume?memory=discard boots its disk without the memory.',
    retryable: false,
  },
  snapshot_incompatible: {
    http: 409,
    connect: 'failed_precondition',
    message: 'The memory of {id} cannot be restored on this host: {problem}',
    cause: 'It was saved by another version of Wrenn, or with another hypervisor or CPU than its host has now.',
    remedy: 'Resume it on a host like the one it slept on, or boot its disk alone with resume?memory=discard.',
    retryable: false,
  },
  object_store_failed: {
    http: 502,
    connect: 'unavailable',
    message: 'The object store failed: {problem}',
    cause: 'It does not answer, refused the credentials, is full, or gave back other bytes than it was given.',
    remedy: 'Check WRENN_OBJECT_STORE and its credentials, then repeat; nothing local was deleted.',
    retryable: true,
  },
  name_reserved: {
    http: 409,
    connect: 'already_exists',
    message: 'The name {name} belongs to a template of the platform.',
    cause: 'Snapshots cannot take the name of a template that every team has.',
    remedy: 'Choose another name.',
    retryable: false,
  },
  template_name_taken: {
    http: 409,
    connect: 'already_exists',
    message: 'There is a template named {name} already.',
    cause: 'Names of templates are unique in a team.',
    remedy: 'Choose another name, or delete the other one first.',
    retryable: false,
  },
  database_unavailable: {
    http: 503,
    connect: 'unavailable',
    message: 'The database does not answer.',
    cause: 'PostgreSQL is down, restarting or out of connections.',
    remedy: 'Retry in a moment.',
    retryable: true,
  },
  host_unavailable: {
    http: 503,
    connect: 'unavailable',
    message: 'The host of this capsule does not answer.',
    cause: 'The host agent is down or cannot be reached.',
    remedy: 'Retry in a moment; capsules come back with their host.',
    retryable: true,
  },
  protocol_mismatch: {
    http: 502,
    connect: 'failed_precondition',
    message: 'The parts of this installation are of versions that do not fit: {problem}',
    cause: 'The control plane and a host agent were updated apart from each other.',
    remedy: 'Install the same version of Wrenn on every machine.',
    retryable: false,
  },
  no_hosts_available: {
    http: 503,
    connect: 'resource_exhausted',
    message: 'No host has room for this capsule: {problem}',
    cause: 'Every host is full, offline or lacks the template.',
    remedy: 'Destroy capsules that are not needed, ask for a smaller shape, or add a host.',
    retryable: true,
  },
  shutting_down: {
    http: 503,
    connect: 'unavailable',
    message: 'This server is shutting down.',
    cause: 'It was told to stop and finishes what it has begun.',
    remedy: 'Retry; another server answers, or this one when it is back.',
    retryable: true,
  },
  deadline_exceeded: {
    http: 504,
    connect: 'deadline_exceeded',
    message: '{what} took longer than {timeout_ms} ms.',
    cause: 'The deadline of the request passed.',
    remedy: 'Give a longer timeout, or run it in the background and attach to its output.',
    retryable: true,
  },
  unknown_user: {
    http: 401,
    connect: 'unauthenticated',
    message: 'There is no user {user} in the capsule.',
    cause: 'The user that the request names, or the default user that was set, is not in /etc/passwd of the guest.',
    remedy: 'Use a user of the guest, such as root, or create this one.',
    retryable: false,
  },
  invalid_signature: {
    http: 401,
    connect: 'unauthenticated',
    message: '{problem}',
    cause: 'The signed link is wrong, was made for another path, user or operation, or has expired.',
    remedy: 'Make a new signed link, or send the access token as X-Access-Token.',
    retryable: false,
  },
  not_acceptable: {
    http: 406,
    connect: 'invalid_argument',
    message: 'No encoding that the client accepts can be sent: {problem}',
    cause: 'Accept-Encoding excludes both gzip and identity, or identity for a part of a file.',
    remedy: 'Accept identity or gzip.',
    retryable: false,
  },
  range_not_satisfiable: {
    http: 416,
    connect: 'out_of_range',
    message: 'The file has {size} bytes; the range that was asked for lies outside.',
    cause: 'The Range header starts after the end of the file.',
    remedy: 'Ask for a range inside the file.',
    retryable: false,
  },
  process_input_closed: {
    http: 409,
    connect: 'failed_precondition',
    message: 'Process {pid} takes no input: {problem}',
    cause: 'The process has no such input, or has closed it.',
    remedy: 'Start the process with stdin, or with a terminal, and write while it reads.',
    retryable: false,
  },
  input_lost: {
    http: 502,
    connect: 'data_loss',
    message: 'At most {bytes} bytes of input did not reach process {selector}.',
    cause: 'The capsule could not be reached for so long that the input for it was given up.',
    remedy: 'Look at what the process has read, then attach to it again and send what is missing.',
    retryable: false,
  },
  port_closed: {
    http: 502,
    connect: 'unavailable',
    message: 'Nothing listens on port {port} of capsule {id}.',
    cause: 'The program that is to serve the port is not started yet, has ended, or listens on 127.0.0.1 only.',
    remedy: 'Start the program in the capsule; it must listen on 0.0.0.0, or on :: for both.',
    retryable: true,
  },
  guest_limit_reached: {
    http: 429,
    connect: 'resource_exhausted',
    message: 'A limit of the guest agent is reached: {problem}',
    cause: 'Too much is open at once in the capsule.',
    remedy: 'Close what is not needed, then repeat.',
    retryable: true,
  },
  events_lost: {
    http: 500,
    connect: 'data_loss',
    message: 'File events were lost: {problem}',
    cause: 'Files changed faster than the events were taken.',
    remedy: 'List the directory again, then start a new watch.',
    retryable: false,
  },
  guest_disk_full: {
    http: 507,
    connect: 'resource_exhausted',
    message: 'The disk of the capsule is full.',
    cause: 'No space is left in the guest file system.',
    remedy: 'Remove files in the capsule, or create one with a larger disk.',
    retryable: false,
  },
  host_disk_full: {
    http: 507,
    connect: 'resource_exhausted',
    message: 'The disk of the host is full.',
    cause: 'No space is left below WRENN_DIR.',
    remedy: 'Free space below WRENN_DIR, or add a host.',
    retryable: true,
  },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERROR_CATALOGUE;

/** Values for the `{name}` places of a message. They reach the user: no inner text, path of the host or stack. */
export type ErrorDetails = Readonly<Record<string, string | number>>;

/** What a REST answer, a WebSocket frame or a Connect error carries. */
export interface ErrorBody {
  code: ErrorCode;
  message: string;
  remedy: string;
  retryable: boolean;
  details?: ErrorDetails;
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CATALOGUE, code);
}

/** An error from the catalogue. Its `cause` is for the log only. */
export class WrennError extends Error {
  override readonly name = 'WrennError';
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, details: ErrorDetails = {}, options?: ErrorOptions) {
    super(fill(ERROR_CATALOGUE[code].message, details), options);
    this.code = code;
    this.details = details;
  }

  get http(): number {
    return ERROR_CATALOGUE[this.code].http;
  }

  get connect(): ConnectCodeName {
    return ERROR_CATALOGUE[this.code].connect;
  }

  get retryable(): boolean {
    return ERROR_CATALOGUE[this.code].retryable;
  }

  get remedy(): string {
    return fill(ERROR_CATALOGUE[this.code].remedy, this.details);
  }

  toBody(): ErrorBody {
    return {
      code: this.code,
      message: this.message,
      remedy: this.remedy,
      retryable: this.retryable,
      ...(Object.keys(this.details).length > 0 ? { details: this.details } : {}),
    };
  }

  /**
   * The error that a body describes; undefined when its code is not in this catalogue. REST bodies carry the
   * catalogue's code as `reason`.
   */
  static fromBody(body: { code?: unknown; reason?: unknown; details?: unknown }): WrennError | undefined {
    const code = body.reason ?? body.code;
    if (typeof code !== 'string' || !isErrorCode(code)) return undefined;
    return new WrennError(code, isDetails(body.details) ? body.details : {});
  }
}

function fill(text: string, details: ErrorDetails): string {
  return text.replaceAll(/\{(\w+)\}/g, (whole, name: string) => String(details[name] ?? whole));
}

function isDetails(value: unknown): value is ErrorDetails {
  return (
    typeof value === 'object' &&
    value !== null &&
    Object.values(value).every((v) => typeof v === 'string' || typeof v === 'number')
  );
}
