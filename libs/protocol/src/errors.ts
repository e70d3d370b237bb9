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
  upgrade_required: {
    http: 426,
    connect: 'invalid_argument',
    message: 'This address is for WebSockets.',
    cause: 'The request does not ask for an upgrade to WebSocket.',
    remedy: 'Open a WebSocket here; /docs describes its frames.',
    retryable: false,
  },
  unauthorized: {
    http: 401,
    connect: 'unauthenticated',
    message: 'This request carries no valid credential.',
    cause: 'The API key or login token is missing, unknown, expired or revoked.',
    remedy:
      'Send a key as X-API-Key (`wrenn up` prints the one of this machine), or log in and send the token as Authorization: Bearer.',
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
  invalid_credentials: {
    http: 401,
    connect: 'unauthenticated',
    message: 'The e-mail address or the password is wrong.',
    cause: 'There is no account of that address with that password.',
    remedy: 'Check both, or ask for a new password with POST /v1/me/password/reset.',
    retryable: false,
  },
  two_factor_required: {
    http: 401,
    connect: 'unauthenticated',
    message: 'This account asks for a second factor.',
    cause: 'Two-factor authentication is on; the password was right.',
    remedy: 'Send the challenge of this answer and a code to POST /v1/auth/two-factor within 5 minutes.',
    retryable: false,
  },
  wrong_code: {
    http: 401,
    connect: 'unauthenticated',
    message: 'The code is wrong or was used before.',
    cause: 'Codes of an authenticator hold for 30 seconds, and each works once; so does each recovery code.',
    remedy: 'Send the code that the authenticator shows now, or an unused recovery code.',
    retryable: false,
  },
  wrong_password: {
    http: 401,
    connect: 'unauthenticated',
    message: 'The current password is wrong.',
    cause: 'The account has another password.',
    remedy: 'Send the current password, or reset it with POST /v1/me/password/reset.',
    retryable: false,
  },
  account_not_activated: {
    http: 403,
    connect: 'permission_denied',
    message: 'This account is not activated yet.',
    cause: 'Its sign-up has not been confirmed.',
    remedy: 'Open the link of the activation mail, or sign up again for a new one.',
    retryable: false,
  },
  account_deactivated: {
    http: 403,
    connect: 'permission_denied',
    message: 'This account is switched off.',
    cause: 'An administrator disabled it, or its owner deleted it.',
    remedy: 'Ask the administrator of this platform.',
    retryable: false,
  },
  sign_up_closed: {
    http: 403,
    connect: 'permission_denied',
    message: 'This platform takes new accounts by invitation only.',
    cause: 'Its administrator closed the sign-up (WRENN_SIGN_UP=invited).',
    remedy: 'Ask somebody of the platform for an invitation, and sign up through its link.',
    retryable: false,
  },
  no_team: {
    http: 403,
    connect: 'permission_denied',
    message: 'You are in no team, and this needs one.',
    cause: 'The account belongs to no team, or to deleted ones only.',
    remedy: 'Create a team with POST /v1/teams or `wrenn team create`, or ask for an invitation.',
    retryable: false,
  },
  insufficient_role: {
    http: 403,
    connect: 'permission_denied',
    message: 'This needs the role {needed}; yours is {role}.',
    cause: 'The role in the team does not allow it.',
    remedy: 'Ask an owner or admin of the team to do it, or to change your role.',
    retryable: false,
  },
  insufficient_scope: {
    http: 403,
    connect: 'permission_denied',
    message: 'This needs a key with the scope {needed}.',
    cause: 'The API key was made for less.',
    remedy: 'Use or create a key with that scope.',
    retryable: false,
  },
  login_required: {
    http: 403,
    connect: 'permission_denied',
    message: 'An API key cannot do this.',
    cause: 'Accounts, teams, members and keys are managed by people.',
    remedy: 'Log in with POST /v1/auth/login or `wrenn login`, and send that token.',
    retryable: false,
  },
  origin_refused: {
    http: 403,
    connect: 'permission_denied',
    message: 'Requests from {origin} are not taken with the cookie of a session.',
    cause: 'The cookie counts only for pages of this server, so that other sites cannot act for you.',
    remedy: 'Send the token in the Authorization header instead, or set CP_PUBLIC_URL to where the pages are.',
    retryable: false,
  },
  invalid_token: {
    http: 400,
    connect: 'invalid_argument',
    message: 'The link or token is not valid any more.',
    cause: 'It has expired, was used, was replaced by a newer one, or is incomplete.',
    remedy: 'Ask for a new one.',
    retryable: false,
  },
  already_activated: {
    http: 400,
    connect: 'invalid_argument',
    message: 'This account is active already.',
    cause: 'It was activated before.',
    remedy: 'Log in with the address and the password of the account.',
    retryable: false,
  },
  two_factor_on: {
    http: 409,
    connect: 'failed_precondition',
    message: 'Two-factor authentication is on already.',
    cause: 'An authenticator was confirmed before.',
    remedy: 'Switch it off with DELETE /v1/me/two-factor and a code first, then set up the other authenticator.',
    retryable: false,
  },
  two_factor_off: {
    http: 409,
    connect: 'failed_precondition',
    message: 'Two-factor authentication is not set up.',
    cause: 'No authenticator was set up, or it is switched off.',
    remedy: 'Begin with POST /v1/me/two-factor, and confirm with a code of the authenticator.',
    retryable: false,
  },
  provider_not_found: {
    http: 404,
    connect: 'not_found',
    message: 'This platform has no login with "{provider}".',
    cause: 'Its administrator has not set up that provider, or the name is misspelt.',
    remedy: 'GET /v1/auth/providers lists what there is; docs/login-providers.md says how to set one up.',
    retryable: false,
  },
  provider_unavailable: {
    http: 503,
    connect: 'unavailable',
    message: 'The login provider "{provider}" does not answer as it should.',
    cause: 'It is down, cannot be reached from the control plane, or is not set up rightly.',
    remedy: 'Try again later, or log in another way; the log of the control plane says what went wrong.',
    retryable: true,
  },
  passkey_refused: {
    http: 401,
    connect: 'unauthenticated',
    message: 'The passkey was not accepted: {problem}.',
    cause: 'It is unknown here, was made for another address, or its answer is too old or was used before.',
    remedy: 'Ask for new options and try once more, or log in another way.',
    retryable: false,
  },
  last_login_method: {
    http: 400,
    connect: 'failed_precondition',
    message: 'This is the only way to log in to the account.',
    cause: 'Without it nobody could log in any more.',
    remedy: 'Set a password, add a passkey or link another provider first.',
    retryable: false,
  },
  owns_team_with_members: {
    http: 409,
    connect: 'failed_precondition',
    message: 'You own the team {team}, which has other members.',
    cause: 'Deleting the account would leave the team without an owner.',
    remedy: 'Transfer the ownership, or delete the team or its other members first.',
    retryable: false,
  },
  owner_immutable: {
    http: 409,
    connect: 'failed_precondition',
    message: 'The owner of a team cannot leave it, be removed, or get another role.',
    cause: 'A team always has exactly one owner.',
    remedy: 'Transfer the ownership first, with POST /v1/teams/{id}/transfer, or delete the team.',
    retryable: false,
  },
  invitation_for_other: {
    http: 403,
    connect: 'permission_denied',
    message: 'This invitation is for another e-mail address.',
    cause: 'It was sent to one person, and your account has another address.',
    remedy: 'Log in with the account of that address, or ask for an invitation to yours.',
    retryable: false,
  },
  last_admin: {
    http: 409,
    connect: 'failed_precondition',
    message: 'This is the last administrator of the platform.',
    cause: 'Without one nobody could run the platform any more.',
    remedy: 'Make somebody else an administrator first, with `wrenn-cp admin grant`.',
    retryable: false,
  },
  delivery_failed: {
    http: 400,
    connect: 'failed_precondition',
    message: 'The message was not taken: {problem}',
    cause: 'What the channel names did not answer, refused the message, or may not be reached from here.',
    remedy: 'Check the address and the credentials of the channel; docs/channels.md says what each provider needs.',
    retryable: true,
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
  idempotency_key_used: {
    http: 409,
    connect: 'already_exists',
    message: 'The idempotency key {key} was used for another request.',
    cause: 'An Idempotency-Key belongs to the first request that it came with, for 30 days.',
    remedy: 'Make a new key for each request; send the same one only with the same request.',
    retryable: false,
  },
  request_in_progress: {
    http: 409,
    connect: 'aborted',
    message: 'The first request with the idempotency key {key} is still being served.',
    cause: 'It takes longer than a repeated request waits for it.',
    remedy: 'Send the same request with the same key again after the time in Retry-After.',
    retryable: true,
  },
  answer_not_kept: {
    http: 409,
    connect: 'failed_precondition',
    message: 'The request with the idempotency key {key} was answered with {status} before; that answer is not kept.',
    cause: 'It was larger than 1 MiB, or the key that encrypted it is not in WRENN_ENCRYPTION_KEY any more.',
    remedy: 'Read what the first request brought about; to do it once more, send a new key.',
    retryable: false,
  },
  headers_too_large: {
    http: 431,
    connect: 'invalid_argument',
    message: 'The headers of the request are too large.',
    cause: 'All headers together may have 16 KiB.',
    remedy: 'Send shorter headers; large values belong into the body.',
    retryable: false,
  },
  request_timeout: {
    http: 408,
    connect: 'deadline_exceeded',
    message: 'The headers of the request did not arrive in time.',
    cause: 'The connection is too slow, or the client stopped sending.',
    remedy: 'Send the request again.',
    retryable: true,
  },
  refused_by_extension: {
    http: 403,
    connect: 'permission_denied',
    message: '{problem}',
    cause: 'An extension of this platform does not allow it.',
    remedy: 'Do what the message says, or ask the administrator of this platform.',
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
  shared_state_unavailable: {
    http: 503,
    connect: 'unavailable',
    message: 'What the control planes keep together cannot be read.',
    cause: 'Redis is down or restarting, so that nobody can say whether a code or token was used before.',
    remedy: 'Retry in a moment; if it is refused then, begin the login anew.',
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
  pool_exhausted: {
    http: 409,
    connect: 'resource_exhausted',
    message: 'The pool of the team has too few {units} left: {used} of {limit} used, {asked} asked, {free} free.',
    cause: 'The capsules of the team share what it has bought, and this one does not fit beside the others.',
    remedy: 'Pause or destroy capsules that are not needed, ask for a smaller shape, or enlarge the pool.',
    retryable: true,
  },
  budget_exceeded: {
    http: 402,
    connect: 'failed_precondition',
    message: 'The budget of the team for this month is used up.',
    cause: 'The team has a budget that puts its capsules to sleep once it is reached.',
    remedy: 'Raise the budget of the team, or wait for the next month; nothing was lost.',
    retryable: true,
  },
  host_not_found: {
    http: 404,
    connect: 'not_found',
    message: 'There is no host {id}.',
    cause: 'The id is wrong, the host was deleted, or it belongs to another team.',
    remedy: 'List the hosts with GET /v1/hosts or `wrenn host ls`.',
    retryable: false,
  },
  registration_refused: {
    http: 401,
    connect: 'unauthenticated',
    message: 'This registration token is not valid: {problem}.',
    cause: 'Registration tokens work once, for one hour, and only until a newer one is made for the same host.',
    remedy: 'Make a new one with POST /v1/hosts/{id}/token, and start the agent again with --register.',
    retryable: false,
  },
  host_credential_refused: {
    http: 401,
    connect: 'unauthenticated',
    message: 'The credential of this host is not valid: {problem}.',
    cause: 'It has expired, was replaced by a newer one, or the host was registered again.',
    remedy: 'Make a token with POST /v1/hosts/{id}/token and start the agent once with --register. Its capsules stay.',
    retryable: false,
  },
  host_credential_shared: {
    http: 409,
    connect: 'failed_precondition',
    message: 'Another agent uses the credentials of host {id}.',
    cause: 'WRENN_DIR/host-token was copied, or the machine was cloned or restored, while the original still runs.',
    remedy:
      'Stop the copy. When the credentials may be in foreign hands, register the host again: POST /v1/hosts/{id}/token.',
    retryable: false,
  },
  byoc_off: {
    http: 403,
    connect: 'permission_denied',
    message: 'The team {id} may not bring its own hosts.',
    cause: 'An administrator of the platform lets teams do that one by one.',
    remedy: 'Ask an administrator to turn it on with PUT /v1/admin/teams/{id}/byoc.',
    retryable: false,
  },
  host_deleted: {
    http: 410,
    connect: 'failed_precondition',
    message: 'Host {id} was deleted.',
    cause: 'Its credentials ended with it. What is on its disk was left as it is.',
    remedy: 'Stop the agent, or register the machine anew with a token of POST /v1/hosts.',
    retryable: false,
  },
  host_state: {
    http: 409,
    connect: 'failed_precondition',
    message: 'Host {id} is {status}; this needs a host that is {needed}.',
    cause: 'The host is in another state than this call needs.',
    remedy: 'Read the host and bring about the state that is needed.',
    retryable: true,
  },
  has_active_sandboxes: {
    http: 409,
    connect: 'failed_precondition',
    message: 'Host {id} still has {count} capsules.',
    cause: 'Deleting it would end those that run, and lose those that sleep on it.',
    remedy: 'Drain it first with POST /v1/hosts/{id}/drain, or delete it with force=true to lose them.',
    retryable: false,
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
