import { stat } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect';
import { WrennError } from '@wrenn/protocol/errors';
import {
  ConnectResponseSchema,
  type Process,
  type ProcessInput as ProcessInputMessage,
  type ProcessSelector,
  type PTY,
  type StartRequest,
  StartResponseSchema,
} from '@wrenn/protocol/gen/process/process_pb';
import { fileError } from '../errors.ts';
import { basicAuthUser, effectiveAccount, type GuestState } from '../guest-state.ts';
import { resolveUserPath } from '../users/paths.ts';
import { processEnvironment } from './environment.ts';
import { findCommand } from './find-command.ts';
import { launchOnPipes, type TerminalSize } from './launch.ts';
import { planLaunch } from './launch-plan.ts';
import { launchOnTerminal } from './launch-terminal.ts';
import { ManagedProcess } from './managed-process.ts';
import { ProcessTable, type Selector } from './process-table.ts';
import { SpillBudget } from './spill-file.ts';
import { streamProcess } from './stream-process.ts';

export interface ProcessServiceOptions {
  readonly state: GuestState;
  readonly guest: boolean;
  /** Directory for kept output that has left memory. */
  readonly spillDirectory: string;
  readonly table?: ProcessTable;
}

/** Kept output of all processes that may lie on the guest's disk. */
const SPILL_BUDGET_BYTES = 256 * 1024 * 1024;
const MAX_SIGNAL = 64;
const DEFAULT_SIZE: TerminalSize = { columns: 80, rows: 24 };

export function createProcessService(options: ProcessServiceOptions): ServiceImpl<typeof Process> {
  const table = options.table ?? new ProcessTable();
  const logOptions = {
    spillDirectory: options.spillDirectory,
    spillBudget: new SpillBudget(SPILL_BUDGET_BYTES),
    reclaim: () => table.forgetOldest(),
  };

  async function start(request: StartRequest, context: HandlerContext): Promise<ManagedProcess> {
    const { process: config, pty } = request;
    if (config === undefined) throw new WrennError('invalid_request', { problem: 'process is missing' });
    if ([config.cmd, ...config.args].some((text) => text.includes('\0'))) {
      throw new WrennError('invalid_request', { problem: 'the command or an argument holds a NUL character' });
    }
    const { state, guest } = options;
    const account = effectiveAccount(state, basicAuthUser(context.requestHeader.get('Authorization')));
    const cwd = resolveUserPath(config.cwd ?? '', account, state.defaultWorkdir);
    await checkWorkingDirectory(cwd);
    const environment = processEnvironment(account, state, config.envs, { guest, terminal: pty !== undefined });
    const path = findCommand(config.cmd, cwd, environment.PATH, account);
    const plan = planLaunch(config.cmd, path, config.args, account, pty ? 'terminal' : 'pipes');
    const launch = { plan, command: config.cmd, cwd, environment };
    const launched = pty
      ? launchOnTerminal(launch, terminalSize(pty) ?? DEFAULT_SIZE, account)
      : await launchOnPipes(launch, request.stdin ?? true);
    const description = {
      command: config.cmd,
      args: config.args,
      environment: config.envs,
      cwd: config.cwd,
      tag: request.tag,
    };
    const process = new ManagedProcess(launched, description, logOptions, context.timeoutMs());
    table.add(process);
    return process;
  }

  function input(
    selector: ProcessSelector | undefined,
    message: ProcessInputMessage | undefined,
    from?: { readonly writer: string; readonly offset: number },
  ): Promise<void> {
    const process = table.findRunning(toSelector(selector));
    const kind = message?.input.case;
    if (kind === undefined) throw new WrennError('invalid_request', { problem: 'input is missing' });
    if (process.input?.kind !== kind) {
      const problem = process.input
        ? `it reads from its ${process.input.kind}, not ${kind}`
        : 'it was started without stdin';
      throw new WrennError('process_input_closed', { pid: process.pid, problem });
    }
    const bytes = message?.input.value ?? new Uint8Array();
    return from ? process.input.writeOnce(from.writer, from.offset, bytes) : process.input.write(bytes);
  }

  return {
    list: () => ({
      processes: table.running().map(({ pid, description, log }) => ({
        pid,
        config: {
          cmd: description.command,
          args: [...description.args],
          envs: { ...description.environment },
          ...(description.cwd === undefined ? {} : { cwd: description.cwd }),
        },
        ...(description.tag === undefined ? {} : { tag: description.tag }),
        outputOffset: BigInt(log.end),
      })),
    }),

    async *start(request, context) {
      const process = await start(request, context);
      for await (const event of streamProcess(process, 0, context, 'process')) {
        yield create(StartResponseSchema, { event });
      }
    },

    async *connect(request, context) {
      const process = table.find(toSelector(request.process));
      const offset = request.fromOffset === undefined ? process.log.end : Number(request.fromOffset);
      if (offset > process.log.end) {
        throw new WrennError('invalid_request', {
          problem: `from_offset ${offset} is beyond the ${process.log.end} bytes that process ${process.pid} has written`,
        });
      }
      for await (const event of streamProcess(process, offset, context, 'stream')) {
        yield create(ConnectResponseSchema, { event });
      }
    },

    update(request) {
      const process = table.findRunning(toSelector(request.process));
      if (request.pty) {
        const size = terminalSize(request.pty);
        if (size === undefined)
          throw new WrennError('invalid_request', { problem: 'a terminal needs columns and rows' });
        process.resize(size);
      }
      return {};
    },

    async streamInput(requests) {
      let selector: ProcessSelector | undefined;
      for await (const { event } of requests) {
        if (event.case === 'start') {
          selector = event.value.process;
          table.findRunning(toSelector(selector));
        } else if (event.case === 'data') {
          if (selector === undefined) {
            throw new WrennError('invalid_request', { problem: 'the first message must name the process' });
          }
          await input(selector, event.value.input);
        }
      }
      return {};
    },

    async sendInput(request) {
      const { writer, offset } = request;
      await input(request.process, request.input, writer === '' ? undefined : { writer, offset: Number(offset) });
      return {};
    },

    sendSignal(request) {
      const process = table.findRunning(toSelector(request.process));
      const signal: number = request.signal;
      if (signal < 1 || signal > MAX_SIGNAL) {
        throw new WrennError('invalid_request', { problem: `signal ${signal} is not between 1 and ${MAX_SIGNAL}` });
      }
      process.signal(signal);
      return {};
    },

    closeStdin(request) {
      table.findRunning(toSelector(request.process)).input?.end();
      return {};
    },
  };
}

function toSelector(selector: ProcessSelector | undefined): Selector {
  switch (selector?.selector.case) {
    case 'pid':
      return { kind: 'pid', pid: selector.selector.value };
    case 'tag':
      return { kind: 'tag', tag: selector.selector.value };
    default:
      throw new WrennError('invalid_request', { problem: 'the process is not named by pid or tag' });
  }
}

function terminalSize(pty: PTY): TerminalSize | undefined {
  const { cols = 0, rows = 0 } = pty.size ?? {};
  if (cols === 0 || rows === 0) return undefined;
  const MAX_CELLS = 0xffff;
  return { columns: Math.min(cols, MAX_CELLS), rows: Math.min(rows, MAX_CELLS) };
}

async function checkWorkingDirectory(cwd: string): Promise<void> {
  try {
    if ((await stat(cwd)).isDirectory()) return;
  } catch (error) {
    const known = fileError(error, cwd, 'enter');
    // E2B's code for a missing directory is invalid_argument, which its clients tell apart from a missing program.
    if (known.code !== 'path_not_found') throw known;
    throw new WrennError('invalid_request', { problem: `cwd ${cwd} does not exist` }, { cause: error });
  }
  throw new WrennError('wrong_file_type', { path: cwd, actual: 'not a directory', expected: 'a directory' });
}
