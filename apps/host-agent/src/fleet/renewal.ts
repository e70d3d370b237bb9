import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { makeSigningRequest, type SigningRequest } from '@wrenn/pki/signing-request';
import { WrennError } from '@wrenn/protocol/errors';
import type { Logger } from 'pino';
import { type BackOff, backOffMs } from './back-off.ts';
import { type ControlPlaneClient, isTransient } from './control-plane-client.ts';
import { checkIssued, type HostCredentials, renewAtMs, saveCredentials } from './credentials.ts';
import { StateLog } from './state-log.ts';

const BACK_OFF: BackOff = { firstMs: 5000, lastMs: 600_000 };

export interface RenewalOptions {
  readonly dir: WrennDir;
  readonly client: ControlPlaneClient;
  readonly credentials: HostCredentials;
  /** `host:port` where the control plane reaches this agent from now on; undefined: as the credentials say. */
  readonly address?: string | undefined;
  /** Puts new credentials to use; they are saved by then. */
  readonly onRenewed: (credentials: HostCredentials) => void;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly backOff?: BackOff;
}

/**
 * The credentials of this host, and how they become new ones. A set is saved before it is used: the control plane ends
 * the one before when the next is first used, so that a crash at any instant leaves a set that is good.
 */
export class Renewal {
  readonly #options: RenewalOptions;
  readonly #state: StateLog;
  #current: HostCredentials;
  #renewAtMs: number;
  /** Whoever asked, or a failure, makes it due before its time. */
  #isWanted = false;
  /** Of the clock that nobody sets. */
  #notBeforeMs = 0;
  #failures = 0;
  #isRefused = false;
  #running: Promise<boolean> | undefined;
  /** Of an attempt that came to no end: asked again, the control plane need not certify another key. */
  #request: SigningRequest | undefined;
  /** Where this agent is reached, which the control plane does not know yet. */
  #newAddress: string | undefined;

  constructor(options: RenewalOptions) {
    this.#options = options;
    this.#state = new StateLog(options.log);
    this.#current = options.credentials;
    this.#renewAtMs = renewAtMs(options.credentials);
    const { address } = options;
    if (address === undefined || address === options.credentials.address) return;
    this.#newAddress = address;
    this.ask();
  }

  get current(): HostCredentials {
    return this.#current;
  }

  /** Whether it is time for an attempt. */
  get isDue(): boolean {
    return performance.now() >= this.#notBeforeMs && (this.#isWanted || Date.now() >= this.#renewAtMs);
  }

  /** Whether the control plane gave no new credentials when it was last asked, and will not by itself. */
  get isRefused(): boolean {
    return this.#isRefused;
  }

  /** The next attempt is due now; after a failure, once its pause is over. */
  ask(): void {
    this.#isWanted = true;
  }

  /**
   * One attempt; whoever asks while it is under way gets its outcome. A failed one is logged, and due again after a
   * while.
   *
   * @returns whether there are new credentials
   */
  attempt(): Promise<boolean> {
    this.#running ??= this.#attempt().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #attempt(): Promise<boolean> {
    const { signal, backOff = BACK_OFF } = this.#options;
    try {
      await this.#renew();
    } catch (error) {
      if (signal.aborted) return false;
      this.#giveUpAddress(error);
      this.#failures += 1;
      this.#isWanted = true;
      this.#isRefused = error instanceof WrennError && !isTransient(error);
      this.#notBeforeMs = performance.now() + backOffMs(backOff, this.#failures);
      this.#tell(error);
      return false;
    }
    this.#failures = 0;
    this.#isWanted = false;
    this.#isRefused = false;
    this.#state.isWell({ hostId: this.#current.host_id }, 'the credentials of this host could be renewed again');
    return true;
  }

  async #renew(): Promise<void> {
    const { dir, client, onRenewed, log, signal } = this.#options;
    const before = this.#current;
    this.#request ??= await makeSigningRequest();
    const { csrPem, keyPem } = this.#request;
    const address = this.#newAddress;
    const body = { refresh_token: before.refresh_token, csr: csrPem, ...(address === undefined ? {} : { address }) };
    const issued = await client.refresh(body, signal);
    await checkIssued({ ...issued, host_id: before.host_id }, keyPem);
    const renewed: HostCredentials = {
      ...{ ...before, ...issued, host_id: before.host_id },
      ...{ key_pem: keyPem, cp_url: client.baseUrl, obtained_at: new Date().toISOString() },
      ...(address === undefined ? {} : { address }),
    };
    await saveCredentials(dir, renewed);
    this.#request = undefined;
    if (address !== undefined) log.info({ address, before: before.address ?? null }, 'this host has another address');
    this.#newAddress = undefined;
    this.#current = renewed;
    this.#renewAtMs = renewAtMs(renewed);
    log.info({ hostId: renewed.host_id }, 'the credentials of this host were renewed');
    onRenewed(renewed);
  }

  /** One that the control plane does not take must not stand in the way of credentials. */
  #giveUpAddress(error: unknown): void {
    if (this.#newAddress === undefined || !(error instanceof WrennError)) return;
    if (error.code !== 'conflict' && error.code !== 'invalid_request') return;
    const fields = { address: this.#newAddress, problem: error.message, remedy: error.remedy };
    this.#options.log.error(fields, 'the new address of this host was refused; the one of before still counts');
    this.#newAddress = undefined;
  }

  #tell(err: unknown): void {
    const { host_id: hostId } = this.#current;
    if (err instanceof WrennError) {
      const { code, remedy } = err;
      this.#state.is(code, 'error', { hostId, problem: err.message, remedy }, 'new credentials were refused');
    } else {
      this.#state.is('failing', 'warn', { err, hostId }, 'the credentials of this host cannot be renewed yet');
    }
  }
}
