import type { OutputEncoding, ProcessStreamServerFrame } from '@wrenn/protocol/rest/process-stream';
import type { ProcessOutput } from './processes.ts';
import { TextChunks } from './text-chunks.ts';

/** Turns what a process tells into frames of `exec/stream` and `processes/{selector}/stream`. */
export async function* toFrames(
  output: AsyncIterable<ProcessOutput>,
  encoding: OutputEncoding,
  tag: string | null,
): AsyncGenerator<ProcessStreamServerFrame> {
  const texts = { stdout: new TextChunks(), stderr: new TextChunks() };
  for await (const part of output) {
    switch (part.type) {
      case 'start':
        yield { type: 'start', pid: part.pid, tag, offset: part.offset };
        break;
      case 'data': {
        // A PTY has one stream for both.
        const type = part.stream === 'stderr' ? 'stderr' : 'stdout';
        if (encoding === 'base64') {
          const { buffer, byteOffset, length } = part.bytes;
          const data_b64 = Buffer.from(buffer, byteOffset, length).toString('base64');
          yield { type, data_b64, offset: part.offset };
        } else {
          const chunk = texts[type].push(part.bytes, part.offset);
          if (chunk) yield { type, ...chunk };
        }
        break;
      }
      case 'end':
        for (const type of ['stdout', 'stderr'] as const) {
          const rest = texts[type].end();
          if (rest) yield { type, ...rest };
        }
        yield { type: 'exit', exit_code: part.exitCode, signal: part.signal, offset: part.offset };
        break;
    }
  }
}
