import { issueLeaf, type KeyPair, readCertificate } from '@wrenn/pki/issue';
import type { Logger } from 'pino';
import type { HostTrust } from './host-session.ts';

const VALID_DAYS = 2;
const RENEWAL_MS = 12 * 3_600_000;
const RETRY_MS = 60_000;

/** The authority of this platform's hosts, and the certificate by which they know this control plane, made anew in time. */
export class FleetTrust implements HostTrust, Disposable {
  readonly authority: KeyPair;
  readonly #log: Logger;
  #own: KeyPair;
  #timer: NodeJS.Timeout | undefined;

  private constructor(authority: KeyPair, own: KeyPair, log: Logger) {
    this.authority = authority;
    this.#own = own;
    this.#log = log;
    this.#renewIn(RENEWAL_MS);
  }

  static async open(authority: KeyPair, log: Logger): Promise<FleetTrust> {
    return new FleetTrust(authority, await issueLeaf(authority, 'control-plane', [], VALID_DAYS), log);
  }

  get caCertPem(): string {
    return this.authority.certPem;
  }

  /** For connections from now on. */
  get certPem(): string {
    return this.#own.certPem;
  }

  get keyPem(): string {
    return this.#own.keyPem;
  }

  get expiresAt(): Date {
    return readCertificate(this.#own.certPem).notAfter;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #renewIn(ms: number): void {
    this.#timer = setTimeout(() => {
      issueLeaf(this.authority, 'control-plane', [], VALID_DAYS).then(
        (own) => {
          this.#own = own;
          if (this.#timer) this.#renewIn(RENEWAL_MS);
        },
        (err: unknown) => {
          this.#log.error({ err }, 'the certificate of this control plane cannot be renewed');
          if (this.#timer) this.#renewIn(RETRY_MS);
        },
      );
    }, ms);
    this.#timer.unref();
  }
}
