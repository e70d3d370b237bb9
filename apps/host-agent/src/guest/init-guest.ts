import { randomBytes } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import { askGuest } from './guest-connection.ts';

/** Enough to seed the kernel's generator twice over. */
const ENTROPY_BYTES = 64;

/** What a guest is told when it starts. */
export interface GuestSettings {
  /** Needed for every later request to envd; new for each VM. */
  readonly accessToken: string;
  readonly envs: Readonly<Record<string, string>>;
  readonly user: string;
  readonly workdir: string;
  readonly hostname: string;
}

/** Waits until envd answers. */
export async function waitForGuest(hostIp: string, signal: AbortSignal): Promise<void> {
  const answer = await askGuest({ hostIp, method: 'GET', path: '/health' }, signal);
  if (answer.status !== 204) throw new Error(`envd answers /health with ${answer.status}`);
}

/** Has envd settle everything that should not be in the middle of something when memory is written down. */
export async function prepareGuestForSnapshot(hostIp: string, signal: AbortSignal): Promise<void> {
  const answer = await askGuest({ hostIp, method: 'POST', path: '/snapshot/prepare' }, signal);
  if (answer.status !== 204) throw new Error(`envd answers /snapshot/prepare with ${answer.status}: ${answer.text}`);
}

/**
 * Gives a started guest its identity: token, clock, fresh randomness, host name and defaults, all or nothing. Returns
 * when the guest has confirmed.
 *
 * @throws WrennError vm_start_failed or guest_protocol_error when the guest refuses.
 */
export async function initGuest(
  id: string,
  hostIp: string,
  settings: GuestSettings,
  signal: AbortSignal,
): Promise<void> {
  const { accessToken, envs, user, workdir, hostname } = settings;
  const answer = await askGuest(
    {
      hostIp,
      method: 'POST',
      path: '/init',
      // A repeated call, whose first answer was lost, meets a guest that has the token already.
      headers: accessToken ? { 'X-Access-Token': accessToken } : {},
      get body() {
        return {
          ...(accessToken ? { accessToken } : {}),
          envVars: envs,
          defaultUser: user,
          defaultWorkdir: workdir,
          hostname,
          timestamp: new Date().toISOString(),
          entropy: randomBytes(ENTROPY_BYTES).toString('base64'),
        };
      },
    },
    signal,
  );
  if (answer.status === 204) return;
  const cause = new Error(`envd answers /init with ${answer.status}: ${answer.text.slice(0, 500)}`);
  if (answer.status === 404 || answer.status === 401) throw new WrennError('guest_protocol_error', { id }, { cause });
  throw new WrennError('vm_start_failed', { problem: 'its guest agent refused the settings.' }, { cause });
}
