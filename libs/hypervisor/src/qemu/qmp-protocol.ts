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
  | { readonly event: 'RESUME' };

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
    default:
      return { kind: 'ignored' };
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
