import { WrennError } from '@wrenn/protocol/errors';
import { checkEnvironmentVariable } from '../process/environment.ts';

/** The body of POST /init. E2B's names, and `hostname`, `entropy` and `machineId`. What is undefined stays as it is. */
export interface InitRequest {
  readonly accessToken: string | undefined;
  readonly defaultUser: string | undefined;
  readonly defaultWorkdir: string | undefined;
  readonly environment: ReadonlyMap<string, string>;
  /** Unix time in milliseconds, with a fraction. */
  readonly unixMs: number | undefined;
  readonly hostName: string | undefined;
  readonly entropy: Buffer | undefined;
  /** 32 lower-case hex digits, machine-id(5). */
  readonly machineId: string | undefined;
}

/** Bounded by what the kernel takes in one call; 32 bytes are enough to make a fork's random numbers its own. */
const MAX_ENTROPY_BYTES = 4096;
/** HOST_NAME_MAX of Linux. */
const MAX_HOST_NAME = 64;
/** Parts of E2B's request that Wrenn's guest has no equal of: to take them silently would promise what does not happen. */
const UNSUPPORTED = ['volumeMounts', 'caBundle'] as const;

/** Checks the whole body before anything is changed. Fails with `invalid_request`. */
export function parseInitRequest(body: unknown): InitRequest {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw invalid('the body must be a JSON object');
  const fields = body as Record<string, unknown>;
  for (const name of UNSUPPORTED) {
    const value = fields[name];
    const empty = value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0);
    if (!empty) throw invalid(`${name} is not supported`);
  }
  const accessToken = optionalText(fields, 'accessToken');
  if (accessToken === '') throw invalid('accessToken must not be empty');
  if (accessToken !== undefined && !/^[\x21-\x7e]+$/.test(accessToken)) {
    throw invalid('accessToken must be printable ASCII, because a header carries it');
  }
  return {
    accessToken,
    defaultUser: optionalText(fields, 'defaultUser') || undefined,
    defaultWorkdir: optionalText(fields, 'defaultWorkdir') || undefined,
    environment: parseEnvironment(fields.envVars),
    unixMs: parseTimestamp(optionalText(fields, 'timestamp')),
    hostName: parseHostName(optionalText(fields, 'hostname')),
    entropy: parseEntropy(optionalText(fields, 'entropy')),
    machineId: parseMachineId(optionalText(fields, 'machineId')),
  };
}

function optionalText(fields: Record<string, unknown>, name: string): string | undefined {
  const value = fields[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') throw invalid(`${name} must be a text`);
  if (value.includes('\0')) throw invalid(`${name} holds a NUL character`);
  return value;
}

function parseEnvironment(value: unknown): Map<string, string> {
  const environment = new Map<string, string>();
  if (value === undefined || value === null) return environment;
  if (typeof value !== 'object' || Array.isArray(value)) throw invalid('envVars must be an object of texts');
  for (const [name, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw invalid(`envVars.${name} must be a text`);
    checkEnvironmentVariable(name, text);
    environment.set(name, text);
  }
  return environment;
}

/** RFC 3339; digits after the millisecond count too, which Date.parse cuts off. */
export function parseTimestamp(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined;
  const match = /^(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.exec(text);
  const [, seconds = '', fraction = '', zone = ''] = match ?? [];
  const whole = Date.parse(`${seconds.replace(' ', 'T').toUpperCase()}${zone.toUpperCase()}`);
  if (match === null || Number.isNaN(whole)) throw invalid('timestamp is not RFC 3339');
  return whole + Number(`0${fraction}`) * 1000;
}

function parseHostName(text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  const valid = text.length <= MAX_HOST_NAME && /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/i.test(text);
  if (!valid) throw invalid(`hostname must be 1 to ${MAX_HOST_NAME} letters, digits, dots and hyphens`);
  return text;
}

function parseEntropy(text: string | undefined): Buffer | undefined {
  if (text === undefined || text === '') return undefined;
  const entropy = Buffer.from(text, 'base64');
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || entropy.length === 0) throw invalid('entropy is not base64');
  if (entropy.length > MAX_ENTROPY_BYTES) throw invalid(`entropy has more than ${MAX_ENTROPY_BYTES} bytes`);
  return entropy;
}

function parseMachineId(text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  if (!/^[0-9a-f]{32}$/.test(text)) throw invalid('machineId must be 32 lower-case hex digits');
  return text;
}

function invalid(problem: string): WrennError {
  return new WrennError('invalid_request', { problem });
}
