import { constants } from 'node:os';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import {
  type ProcessEvent,
  type ProcessEvent_EndEventSchema,
  ProcessEventSchema,
} from '@wrenn/protocol/gen/process/process_pb';
import type { ProcessEnd } from './managed-process.ts';
import type { OutputChunk } from './output-chunk.ts';

export function startEvent(pid: number, offset: number): ProcessEvent {
  return create(ProcessEventSchema, { event: { case: 'start', value: { pid, offset: BigInt(offset) } } });
}

export function dataEvent(chunk: OutputChunk): ProcessEvent {
  return create(ProcessEventSchema, {
    event: {
      case: 'data',
      value: { output: { case: chunk.stream, value: chunk.data }, offset: BigInt(chunk.offset) },
    },
  });
}

export function keepaliveEvent(): ProcessEvent {
  return create(ProcessEventSchema, { event: { case: 'keepalive', value: {} } });
}

export function endEvent(end: ProcessEnd): ProcessEvent {
  return create(ProcessEventSchema, {
    event: { case: 'end', value: { ...outcome(end), outputOffset: BigInt(end.outputBytes) } },
  });
}

/** As E2B: an error whenever the process did not end with 0, the same text as the status unless there is a reason. */
function outcome({ exit, deadlineMs }: ProcessEnd): MessageInitShape<typeof ProcessEvent_EndEventSchema> {
  if (exit.kind === 'exit') {
    const status = `exit status ${exit.code}`;
    return { exitCode: exit.code, exited: true, status, ...(exit.code === 0 ? {} : { error: status }) };
  }
  const status = `signal: ${signalName(exit.signal)}`;
  const error = deadlineMs === undefined ? status : `deadline exceeded: the process was killed after ${deadlineMs} ms`;
  return { exitCode: -1, exited: false, status, error, signal: exit.signal };
}

function signalName(number: number): string {
  return Object.entries(constants.signals).find(([, value]) => value === number)?.[0] ?? String(number);
}
