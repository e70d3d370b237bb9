import { randomBytes } from 'node:crypto';
import { WrennError } from '@wrenn/protocol/errors';
import { askGuest, type GuestAnswer } from './guest-connection.ts';

/** Enough to seed the kernel's generator twice over. */
const ENTROPY_BYTES = 64;
/**
 * The time in a request is as old when it is applied as the request took. On a busy emulated host that has been 1.5 s;
 * the next request is quicker, because the guest's code is translated by then.
 */
const LATE_MS = 400;
const CLOCK_CORRECTIONS = 3;

/** What a guest is told when it starts. */
export interface GuestSettings {
  /** Needed for every later request to envd. */
  readonly accessToken: string;
  /** What the guest demands until then, where its memory has a token already. */
  readonly guestToken?: string;
  readonly envs: Readonly<Record<string, string>>;
  readonly user: string;
  readonly workdir: string;
  readonly hostname: string;
  /** 32 hex digits; left as it is where this is not given. */
  readonly machineId?: string;
}

/** Waits until envd answers. */
export async function waitForGuest(hostIp: string, signal: AbortSignal): Promise<void> {
  const answer = await askGuest({ hostIp, method: 'GET', path: '/health' }, signal);
  if (answer.status !== 204) throw new Error(`envd answers /health with ${answer.status}`);
}

/** Has envd settle everything that should not be in the middle of something when memory is written down. */
export async function prepareGuestForSnapshot(hostIp: string, token: string, signal: AbortSignal): Promise<void> {
  const headers = token ? { 'X-Access-Token': token } : {};
  const answer = await askGuest({ hostIp, method: 'POST', path: '/snapshot/prepare', headers }, signal);
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
  const { accessToken, guestToken, envs, user, workdir, hostname, machineId } = settings;
  const body = {
    ...(accessToken ? { accessToken } : {}),
    envVars: envs,
    defaultUser: user,
    defaultWorkdir: workdir,
    hostname,
    ...(machineId === undefined ? {} : { machineId }),
  };
  let answer = await postInit(hostIp, guestToken || accessToken, body, signal);
  // An earlier call whose answer was lost has changed the token already.
  if (answer.status === 401 && guestToken) answer = await postInit(hostIp, accessToken, body, signal);
  requireInit(id, answer);
  if (answer.tookMs > LATE_MS) await refreshGuest(id, hostIp, accessToken, signal);
}

/**
 * Sets the clock of a guest that stood still for a while, and gives it fresh randomness. Nothing else of it changes.
 *
 * @throws WrennError as `initGuest`
 */
export async function refreshGuest(id: string, hostIp: string, token: string, signal: AbortSignal): Promise<void> {
  for (let attempt = 1; attempt <= CLOCK_CORRECTIONS; attempt++) {
    const answer = await postInit(hostIp, token, { keepConnections: true }, signal);
    requireInit(id, answer);
    if (answer.tookMs <= LATE_MS) return;
  }
}

interface InitAnswer extends GuestAnswer {
  /** From the moment whose time the guest was told. */
  readonly tookMs: number;
}

async function postInit(hostIp: string, token: string, body: object, signal: AbortSignal): Promise<InitAnswer> {
  let told = performance.now();
  const answer = await askGuest(
    {
      hostIp,
      method: 'POST',
      path: '/init',
      headers: token ? { 'X-Access-Token': token } : {},
      get body() {
        told = performance.now();
        const entropy = randomBytes(ENTROPY_BYTES).toString('base64');
        return { ...body, timestamp: new Date().toISOString(), entropy };
      },
    },
    signal,
  );
  return { ...answer, tookMs: performance.now() - told };
}

function requireInit(id: string, answer: GuestAnswer): void {
  if (answer.status === 204) return;
  const cause = new Error(`envd answers /init with ${answer.status}: ${answer.text.slice(0, 500)}`);
  if (answer.status === 404 || answer.status === 401) throw new WrennError('guest_protocol_error', { id }, { cause });
  throw new WrennError('vm_start_failed', { problem: 'its guest agent refused the settings.' }, { cause });
}
