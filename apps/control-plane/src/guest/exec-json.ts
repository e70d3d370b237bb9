import { Readable } from 'node:stream';
import type { ExecResponse } from '@wrenn/protocol/rest/exec';
import type { OutputCollector } from './output-collector.ts';

const PIECE_BYTES = 16 * 1024;

/** An exec answer without its output. */
export type ExecHead = Omit<
  ExecResponse,
  'stdout' | 'stderr' | 'encoding' | 'stdout_truncated_bytes' | 'stderr_truncated_bytes'
>;

/**
 * The JSON of an exec answer, made piece by piece while it is sent: whole outputs as strings would take several times
 * their size in memory.
 */
export function execJson(head: ExecHead, stdout: OutputCollector, stderr: OutputCollector): Readable {
  return Readable.from(pieces(head, stdout, stderr), { objectMode: false });
}

function* pieces(head: ExecHead, stdout: OutputCollector, stderr: OutputCollector): Generator<string> {
  const encoding = stdout.isText() && stderr.isText() ? 'utf-8' : 'base64';
  const encode = encoding === 'utf-8' ? textPieces : base64Pieces;
  const tail = {
    encoding,
    stdout_truncated_bytes: stdout.truncatedBytes,
    stderr_truncated_bytes: stderr.truncatedBytes,
  };
  yield `${JSON.stringify(head).slice(0, -1)},"stdout":"`;
  yield* encode(stdout);
  yield '","stderr":"';
  yield* encode(stderr);
  yield `",${JSON.stringify(tail).slice(1)}`;
}

function* textPieces(output: OutputCollector): Generator<string> {
  // Not at its end: a character that the limit cut in two is left out.
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  for (const piece of cut(output)) yield JSON.stringify(decoder.decode(piece, { stream: true })).slice(1, -1);
}

/** Small, so that what is made of them is gone again soon. */
function* cut(output: OutputCollector): Generator<Buffer> {
  for (const block of output.blocks()) {
    for (let at = 0; at < block.length; at += PIECE_BYTES) yield block.subarray(at, at + PIECE_BYTES);
  }
}

function* base64Pieces(output: OutputCollector): Generator<string> {
  let rest: Buffer = Buffer.alloc(0);
  for (const block of cut(output)) {
    const bytes = rest.length > 0 ? Buffer.concat([rest, block]) : block;
    const whole = bytes.length - (bytes.length % 3);
    yield bytes.toString('base64', 0, whole);
    rest = bytes.subarray(whole);
  }
  yield rest.toString('base64');
}
