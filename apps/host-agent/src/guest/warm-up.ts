import { createClient } from '@connectrpc/connect';
import { Filesystem } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import { askGuest } from './guest-connection.ts';
import { guestTransport, runGuestProgram } from './guest-programs.ts';
import { initGuest } from './init-guest.ts';

export interface WarmUpOptions {
  readonly hostIp: string;
  /** The template's defaults, under which most commands will run. */
  readonly user: string;
  readonly workdir: string;
  /** Of each request; a guest that lacks what one of them needs is not held up for long. */
  readonly timeoutMs: number;
}

/** What people run first. Each is read from disk once, here, instead of in every VM. */
const FIRST_PROGRAMS = ['python3 -c pass', 'node -e 0'];

/**
 * Has a freshly booted guest do once what every VM will be asked for first, so that the snapshot taken next holds the
 * guest agent's code compiled and the usual programs in the page cache. Gives no token, so the guest stays open for
 * the settings of each VM.
 *
 * @returns what could not be done: a template may lack a shell or the user. It starts all the same, only slower.
 */
export async function warmUpGuest(options: WarmUpOptions, signal: AbortSignal): Promise<unknown[]> {
  const { hostIp, user, workdir, timeoutMs } = options;
  const transport = guestTransport(hostIp);
  const settings = { accessToken: '', envs: {}, user, workdir, hostname: 'wrenn' };
  const steps: ((limit: AbortSignal) => Promise<unknown>)[] = [
    (limit) => initGuest('template', hostIp, settings, limit),
    ...FIRST_PROGRAMS.map((script) => (limit: AbortSignal) => {
      return runGuestProgram(transport, { cmd: '/bin/bash', args: ['-l', '-c', script] }, limit);
    }),
    (limit) => createClient(Filesystem, transport).listDir({ path: workdir, depth: 1 }, { signal: limit }),
    (limit) => askGuest({ hostIp, method: 'GET', path: '/files?path=/etc/hostname' }, limit),
  ];
  const problems: unknown[] = [];
  for (const step of steps) {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
    await step(limit).catch((error: unknown) => problems.push(error));
    signal.throwIfAborted();
  }
  return problems;
}
