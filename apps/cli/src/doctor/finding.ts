import { messageOf } from '../cli-error.ts';

/** One line of what `wrenn doctor` found. */
export interface Finding {
  /** What was looked at, in a word or two. */
  readonly name: string;
  /** `fail`: Wrenn cannot work on this machine like that. `warn`: it works, with less. */
  readonly status: 'ok' | 'warn' | 'fail';
  /** What was found, for a person. */
  readonly detail: string;
  /** What to do about it. */
  readonly remedy?: string;
}

export function ok(name: string, detail: string): Finding {
  return { name, status: 'ok', detail };
}

export function warn(name: string, detail: string, remedy: string): Finding {
  return { name, status: 'warn', detail, remedy };
}

export function fail(name: string, detail: string, remedy: string): Finding {
  return { name, status: 'fail', detail, remedy };
}

/** A group of findings, looked for at the same time as the others and shown in its place. */
export interface Check {
  readonly title: string;
  readonly run: (signal: AbortSignal) => Promise<Finding[]>;
}

/** A check that breaks is a finding too: the others still count. */
export async function runCheck({ title, run }: Check, signal: AbortSignal): Promise<Finding[]> {
  try {
    return await run(signal);
  } catch (error) {
    signal.throwIfAborted();
    return [fail(title, `this could not be checked: ${messageOf(error)}`, 'Run `WRENN_DEBUG=1 wrenn doctor` as root.')];
  }
}
