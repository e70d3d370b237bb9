import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf } from '../errors.ts';
import type { LaunchedProcess, OutputSource, ProcessExit, TerminalSize } from './launch.ts';
import { OutputLog, type OutputLogOptions, type OutputReader } from './output-log.ts';
import type { ProcessInput } from './process-input.ts';

/** What the client asked to run. */
export interface ProcessDescription {
  readonly command: string;
  readonly args: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly cwd: string | undefined;
  readonly tag: string | undefined;
}

/** How a process ended, and how much it wrote. */
export interface ProcessEnd {
  readonly exit: ProcessExit;
  /** Set when its deadline ended it. */
  readonly deadlineMs: number | undefined;
  readonly outputBytes: number;
}

/**
 * After its exit a process's output is read until its pipes end. A program that it left in the background may hold them
 * open for ever, so after this many looks in a row that found nothing the end is declared. Looks and not time, because
 * after a stall of this machine time has passed while nobody looked.
 */
const QUIET_LOOKS = 3;
const LOOK_EVERY_MS = 50;
/** Nor is more read than a pipe can have held at the exit (fs.pipe-max-size), or a busy background would hold the end up. */
const MAX_AFTER_EXIT_BYTES = 1024 * 1024;

/** A process that this envd started: its output, input and end. Lives on after the end, until the table forgets it. */
export class ManagedProcess {
  readonly pid: number;
  readonly description: ProcessDescription;
  readonly log: OutputLog;
  /** Resolves after the last byte of output is in the log. */
  readonly ended: Promise<ProcessEnd>;
  readonly #launched: LaunchedProcess;
  readonly #openSources: Set<OutputSource>;
  #end: ProcessEnd | undefined;
  #afterExit: { bytes: number; quietLooks: number } | undefined;
  #deadline: { timer: NodeJS.Timeout; timeoutMs: number; passed: boolean } | undefined;
  #resolveEnd: (end: ProcessEnd) => void = () => {};

  constructor(
    launched: LaunchedProcess,
    description: ProcessDescription,
    logOptions: Omit<OutputLogOptions, 'onPressure'>,
    deadlineMs: number | undefined,
  ) {
    this.pid = launched.pid;
    this.description = description;
    this.#launched = launched;
    this.log = new OutputLog({ ...logOptions, onPressure: (behind) => this.#setPaused(behind) });
    this.ended = new Promise((resolve) => {
      this.#resolveEnd = resolve;
    });
    this.#openSources = new Set(launched.sources);
    for (const source of launched.sources) this.#read(source);
    if (deadlineMs !== undefined) this.#setDeadline(deadlineMs);
    void launched.exited.then((exit) => this.#drain(exit));
  }

  /** How it ended; undefined while it runs. */
  get end(): ProcessEnd | undefined {
    return this.#end;
  }

  get input(): ProcessInput | undefined {
    return this.#launched.input;
  }

  attach(offset: number): OutputReader {
    return this.log.attach(offset);
  }

  /** Signals the whole process group, and on a terminal the foreground job too. Fails when nothing is left of them. */
  signal(signal: number): void {
    const groups = new Set([this.pid]);
    if (this.#launched.resize) {
      const foreground = foregroundGroup(this.pid);
      if (foreground !== undefined) groups.add(foreground);
    }
    let reached = false;
    for (const group of groups) {
      try {
        process.kill(-group, signal);
        reached = true;
      } catch (error) {
        if (errnoOf(error) === 'EPERM') {
          throw new WrennError('permission_denied_in_guest', { action: 'signal', path: `process ${this.pid}` });
        }
        if (errnoOf(error) !== 'ESRCH') throw error;
      }
    }
    if (!reached) throw new WrennError('process_not_found', { selector: this.pid });
  }

  resize(size: TerminalSize): void {
    if (this.#launched.resize === undefined) {
      throw new WrennError('invalid_request', { problem: `process ${this.pid} has no terminal` });
    }
    this.#launched.resize(size);
  }

  #setDeadline(timeoutMs: number): void {
    const timer = setTimeout(() => {
      if (this.#deadline) this.#deadline.passed = true;
      try {
        this.signal(constants.signals.SIGKILL);
      } catch {
        // It ended in this very moment, which is what the deadline is for.
      }
    }, timeoutMs);
    this.#deadline = { timer, timeoutMs, passed: false };
  }

  #read(source: OutputSource): void {
    const { socket, stream } = source;
    socket.on('data', (data: Buffer) => {
      if (!this.#openSources.has(source)) return;
      if (this.#afterExit) {
        this.#afterExit.bytes += data.length;
        this.#afterExit.quietLooks = 0;
      }
      this.log.append(stream, data);
    });
    // A terminal ends with EIO when its last program has closed it; "close" follows.
    socket.on('error', () => {});
    socket.once('close', () => {
      this.#openSources.delete(source);
      if (this.#openSources.size === 0 && this.#afterExit) this.#onDrained();
    });
  }

  /** After the exit nothing pauses: what is left is no more than the pipes hold, and a stuck client delays no end. */
  #setPaused(behind: boolean): void {
    if (this.#afterExit) return;
    for (const { socket } of this.#openSources) {
      if (behind) socket.pause();
      else socket.resume();
    }
  }

  #onDrained: () => void = () => {};

  async #drain(exit: ProcessExit): Promise<void> {
    if (this.#deadline) clearTimeout(this.#deadline.timer);
    const after = { bytes: 0, quietLooks: 0 };
    this.#setPaused(false);
    this.#afterExit = after;
    if (this.#openSources.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = setInterval(() => {
          after.quietLooks += 1;
          const all = after.bytes >= MAX_AFTER_EXIT_BYTES * this.#launched.sources.length;
          if (after.quietLooks > QUIET_LOOKS || all) finish();
        }, LOOK_EVERY_MS);
        const finish = () => {
          clearInterval(timer);
          resolve();
        };
        this.#onDrained = finish;
      });
    }
    this.#abandonSources();
    this.#launched.input?.destroy();
    this.#end = {
      exit,
      deadlineMs: this.#deadline?.passed ? this.#deadline.timeoutMs : undefined,
      outputBytes: this.log.end,
    };
    this.log.close();
    this.#resolveEnd(this.#end);
  }

  /**
   * What background programs write after the end belongs to no process that is listed. It is read and let go, because a
   * closed pipe would kill them at their next line. A terminal is closed, which hangs them up, as terminals do.
   */
  #abandonSources(): void {
    for (const source of [...this.#openSources]) {
      this.#openSources.delete(source);
      if (source.stream === 'pty') source.socket.destroy();
      else source.socket.resume().unref();
    }
  }
}

/** The foreground process group of a process's terminal. */
function foregroundGroup(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    // The process is gone; its group may still be there.
    return undefined;
  }
  // After the name in parentheses: state, ppid, pgrp, session, tty_nr, tpgid (proc(5)).
  const tpgid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[5]);
  return Number.isInteger(tpgid) && tpgid > 0 ? tpgid : undefined;
}
