import { createClient } from '@connectrpc/connect';
import { Filesystem } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import { guestTransport, runGuestProgram } from './guest-programs.ts';

export interface ExerciseOptions {
  readonly hostIp: string;
  /** What the guest demands now. */
  readonly token: string;
  /** The guest's default working directory. */
  readonly workdir: string;
  /** Of each request. */
  readonly timeoutMs: number;
}

/**
 * Has a restored guest do once what its tenant will ask first. Each process of an emulating hypervisor translates the
 * guest's code anew, and every restored guest touches its memory for the first time; both are most of what a first
 * command waits for. Leaves nothing behind in the guest that its tenant could see.
 *
 * @param quiet Awaited before each request.
 * @returns what could not be done, as where a template has no shell. The guest is of use all the same.
 */
export async function exerciseGuest(
  { hostIp, token, workdir, timeoutMs }: ExerciseOptions,
  quiet: () => Promise<void>,
  signal: AbortSignal,
): Promise<unknown[]> {
  const transport = guestTransport(hostIp, token);
  const steps: ((limit: AbortSignal) => Promise<unknown>)[] = [
    (limit) => runGuestProgram(transport, { cmd: '/bin/sh', args: ['-c', 'true'] }, limit),
    (limit) => createClient(Filesystem, transport).listDir({ path: workdir, depth: 1 }, { signal: limit }),
  ];
  const problems: unknown[] = [];
  for (const step of steps) {
    await quiet();
    await step(AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])).catch((error: unknown) =>
      problems.push(error),
    );
    signal.throwIfAborted();
  }
  return problems;
}
