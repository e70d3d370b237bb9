/**
 * The part of QEMU's machine protocol that the driver uses. Names and shapes are those of QEMU's own reference
 * (docs/interop/qemu-qmp-ref): a line of JSON each way, `{execute, arguments, id}` answered by `{return, id}` or
 * `{error, id}`, with events in between.
 */

/** A command's arguments and its answer. */
export interface QmpCommands {
  qmp_capabilities: { readonly arguments: undefined; readonly answer: object };
  'query-status': { readonly arguments: undefined; readonly answer: { readonly status: string } };
  'query-memory-size-summary': { readonly arguments: undefined; readonly answer: { readonly 'base-memory': number } };
  'query-cpus-fast': { readonly arguments: undefined; readonly answer: readonly object[] };
  stop: { readonly arguments: undefined; readonly answer: object };
  cont: { readonly arguments: undefined; readonly answer: object };
  quit: { readonly arguments: undefined; readonly answer: object };
  'query-named-block-nodes': {
    readonly arguments: { readonly flat: boolean };
    readonly answer: readonly { readonly 'node-name': string }[];
  };
  /** Copies what lies between a node and `base-node` into the node, and takes what is between them out of the chain. */
  'block-stream': {
    readonly arguments: {
      readonly 'job-id': string;
      readonly device: string;
      readonly 'base-node': string;
      /** Bytes a second; 0 is without a limit. */
      readonly speed: number;
      readonly 'on-error': 'report';
    };
    readonly answer: object;
  };
  /** `device` is the name of the job. */
  'query-block-jobs': { readonly arguments: undefined; readonly answer: readonly { readonly device: string }[] };
  'block-job-cancel': {
    readonly arguments: { readonly device: string; readonly force: boolean };
    readonly answer: object;
  };
  /** Writes the state of every device, and no memory, to a file that QEMU opens by its own rights. */
  'xen-save-devices-state': {
    readonly arguments: { readonly filename: string; readonly live: boolean };
    readonly answer: object;
  };
  /** A command of the human monitor; the answer is what a person would read. */
  'human-monitor-command': { readonly arguments: { readonly 'command-line': string }; readonly answer: string };
}

export type QmpCommandName = keyof QmpCommands;

/** Something that happened in QEMU. Events that nothing here needs are not passed on. */
export type QmpEvent =
  /** The VM ends. `guest`: the guest asked for it; `reason` is QEMU's ShutdownCause, e.g. "guest-reset". */
  | { readonly event: 'SHUTDOWN'; readonly data: { readonly guest: boolean; readonly reason: string } }
  /** The vCPUs stand still. */
  | { readonly event: 'STOP' }
  /** The vCPUs run. */
  | { readonly event: 'RESUME' }
  /** A request of the guest to its disk failed. With `stop` the vCPUs stand still until `cont` tries it again. */
  | { readonly event: 'BLOCK_IO_ERROR'; readonly data: QmpDiskError }
  /** A job has ended, by itself or with an error. `device` is its name. */
  | { readonly event: 'BLOCK_JOB_COMPLETED'; readonly data: { readonly device: string; readonly error?: string } }
  | { readonly event: 'BLOCK_JOB_CANCELLED'; readonly data: { readonly device: string } };

export interface QmpDiskError {
  readonly operation: 'read' | 'write';
  readonly action: 'ignore' | 'report' | 'stop';
  readonly nospace: boolean;
  /** For a person. */
  readonly reason: string;
}

export type QmpShutdown = Extract<QmpEvent, { event: 'SHUTDOWN' }>['data'];

/** QEMU refused a command. */
export class QmpCommandError extends Error {
  override readonly name = 'QmpCommandError';
  readonly command: string;
  /** QEMU's error class, e.g. "GenericError". */
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string) {
    super(`QEMU refused "${command}": ${description}`);
    this.command = command;
    this.errorClass = errorClass;
  }
}

/** The connection to QEMU ended, or what came over it is not QMP. */
export class QmpConnectionError extends Error {
  override readonly name = 'QmpConnectionError';
}

/** QEMU gave no answer in time. */
export class QmpTimeoutError extends Error {
  override readonly name = 'QmpTimeoutError';

  constructor(what: string, timeoutMs: number) {
    super(`QEMU did not answer ${what} within ${timeoutMs} ms`);
  }
}

/** What one line from QEMU says. */
export type QmpMessage =
  | { readonly kind: 'greeting' }
  | { readonly kind: 'answer'; readonly id: number; readonly value: unknown }
  | { readonly kind: 'refusal'; readonly id: number; readonly errorClass: string; readonly description: string }
  | { readonly kind: 'event'; readonly event: QmpEvent }
  | { readonly kind: 'ignored' };

/** @throws QmpConnectionError where the line is not a QMP message. */
export function parseQmpMessage(line: string): QmpMessage {
  let message: unknown;
  try {
    message = JSON.parse(line);
  } catch (cause) {
    throw new QmpConnectionError('QEMU sent a line that is not JSON', { cause });
  }
  if (!isRecord(message)) throw new QmpConnectionError('QEMU sent a line that is not an object');
  if ('QMP' in message) return { kind: 'greeting' };
  if (typeof message.event === 'string') return parseEvent(message.event, message.data);
  const id = message.id;
  if (typeof id !== 'number') throw new QmpConnectionError('QEMU sent an answer without an id');
  if ('return' in message) return { kind: 'answer', id, value: message.return };
  const error = message.error;
  if (!isRecord(error)) throw new QmpConnectionError('QEMU sent a message of an unknown form');
  return { kind: 'refusal', id, errorClass: String(error.class), description: String(error.desc) };
}

function parseEvent(name: string, data: unknown): QmpMessage {
  switch (name) {
    case 'STOP':
    case 'RESUME':
      return { kind: 'event', event: { event: name } };
    case 'SHUTDOWN': {
      const { guest, reason } = isRecord(data) ? data : {};
      return {
        kind: 'event',
        event: { event: 'SHUTDOWN', data: { guest: guest === true, reason: String(reason ?? 'unknown') } },
      };
    }
    case 'BLOCK_IO_ERROR': {
      const { operation, action, nospace, reason } = isRecord(data) ? data : {};
      return {
        kind: 'event',
        event: {
          event: name,
          data: {
            operation: operation === 'read' ? 'read' : 'write',
            action: action === 'stop' || action === 'ignore' ? action : 'report',
            nospace: nospace === true,
            reason: String(reason ?? 'unknown'),
          },
        },
      };
    }
    case 'BLOCK_JOB_CANCELLED':
    case 'BLOCK_JOB_COMPLETED': {
      const { device, error } = isRecord(data) ? data : {};
      const job = { device: String(device ?? '') };
      if (name === 'BLOCK_JOB_CANCELLED') return { kind: 'event', event: { event: name, data: job } };
      const problem = error === undefined ? {} : { error: String(error) };
      return { kind: 'event', event: { event: name, data: { ...job, ...problem } } };
    }
    default:
      return { kind: 'ignored' };
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
