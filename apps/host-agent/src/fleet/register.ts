import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { createFile } from '@wrenn/config/atomic-file';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { makeSigningRequest, type SigningRequest } from '@wrenn/pki/signing-request';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import { type BackOff, backOffMs } from './back-off.ts';
import { ControlPlaneClient, ControlPlaneError, isTransient } from './control-plane-client.ts';
import { checkIssued, type HostCredentials, saveCredentials } from './credentials.ts';
import type { registrationFacts } from './host-facts.ts';

/** Somebody waits for the outcome; a control plane that restarts is back by then. */
const PATIENCE_MS = 60_000;
const BACK_OFF: BackOff = { firstMs: 500, lastMs: 5000 };

/** This machine did not become a host. The message says why, and what to do. */
export class RegistrationError extends Error {
  override readonly name = 'RegistrationError';
}

export interface RegisterOptions {
  readonly dir: WrennDir;
  readonly cpUrl: string;
  readonly token: string;
  /** `host:port` at which the control plane reaches this agent; undefined: it does not. */
  readonly address: string | undefined;
  readonly facts: Awaited<ReturnType<typeof registrationFacts>>;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** How long a control plane that does not answer is asked again; a minute unless told. */
  readonly patienceMs?: number;
}

/**
 * Makes this machine a host: trades a registration token for credentials, and saves them. The key never leaves the
 * machine. It is kept until the credentials are saved, so that the same token and key are good once more where the
 * answer was lost.
 *
 * @throws RegistrationError; what was saved before is as it was then.
 */
export async function register(options: RegisterOptions): Promise<HostCredentials> {
  const { dir, cpUrl, token, address, facts } = options;
  const { csrPem, keyPem } = await pendingRequest(dir);
  const issued = await untilAnswered(options, (client) =>
    client.register({ token, csr: csrPem, ...facts, ...(address === undefined ? {} : { address }) }, options.signal),
  );
  await checkIssued(issued, keyPem);
  const credentials: HostCredentials = {
    ...issued,
    ...{ cp_url: cpUrl, key_pem: keyPem, obtained_at: new Date().toISOString(), registered_with: hashOf(token) },
    ...(address === undefined ? {} : { address }),
  };
  await saveCredentials(dir, credentials);
  await rm(dir.hostKey, { force: true });
  return credentials;
}

/** Whether credentials came of this token. */
export function isRegisteredWith(credentials: HostCredentials, token: string): boolean {
  return credentials.registered_with === hashOf(token);
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** A request with the key of a registration that came to no end, or with a new one, which is saved first. */
async function pendingRequest({ hostKey }: WrennDir): Promise<SigningRequest> {
  const found = await readFile(hostKey, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (found !== undefined) {
    try {
      return await makeSigningRequest(found);
    } catch (cause) {
      throw new RegistrationError(`${hostKey} holds no key; remove it to have a new one made.`, { cause });
    }
  }
  const made = await makeSigningRequest();
  await createFile(hostKey, made.keyPem, { mode: 0o600 });
  return made;
}

async function untilAnswered<T>(options: RegisterOptions, ask: (client: ControlPlaneClient) => Promise<T>): Promise<T> {
  const { cpUrl, log, signal, patienceMs = PATIENCE_MS } = options;
  const client = new ControlPlaneClient(cpUrl);
  const deadlineMs = performance.now() + patienceMs;
  for (let failures = 1; ; failures += 1) {
    try {
      return await ask(client);
    } catch (error) {
      if (!isTransient(error) || performance.now() >= deadlineMs) throw asRegistrationError(error);
      log.warn({ err: error }, 'could not register yet; trying again');
      await delay(backOffMs(BACK_OFF, failures), undefined, { signal });
    }
  }
}

function asRegistrationError(error: unknown): unknown {
  if (error instanceof WrennError) {
    return new RegistrationError(`This machine was not registered. ${error.message} ${error.remedy}`, { cause: error });
  }
  if (!(error instanceof ControlPlaneError)) return error;
  return new RegistrationError(
    `This machine was not registered: ${error.message}. Check WRENN_CP_URL, then start the agent again with the same token.`,
    { cause: error },
  );
}
