import type { Duplex } from 'node:stream';
import { WrennError } from '@wrenn/protocol/errors';

/**
 * Byte streams that hosts brought here because no address leads to them. Each carries one connection; a host that needs
 * another brings another.
 */
export class OutboundLinks implements AsyncDisposable {
  /** The newest stream of each host, and whether somebody uses it. */
  readonly #links = new Map<string, { readonly stream: Duplex; isUsed: boolean }>();
  readonly #onOffer: (hostId: string) => void;
  #closed = false;

  /** @param onOffer is called when a host can be reached that could not */
  constructor(onOffer: (hostId: string) => void) {
    this.#onOffer = onOffer;
  }

  /** A stream of the same host from before is of a connection that the host has given up. */
  offer(hostId: string, stream: Duplex): void {
    this.#links.get(hostId)?.stream.destroy();
    if (this.#closed) {
      stream.destroy();
      return;
    }
    const link = { stream, isUsed: false };
    this.#links.set(hostId, link);
    stream.on('error', () => stream.destroy());
    stream.once('close', () => {
      if (this.#links.get(hostId) === link) this.#links.delete(hostId);
    });
    this.#onOffer(hostId);
  }

  /** Of how many hosts. */
  get size(): number {
    return this.#links.size;
  }

  /** Whether the host holds a connection here, used or not. */
  has(hostId: string): boolean {
    return this.#links.get(hostId)?.stream.destroyed === false;
  }

  /** @throws WrennError `host_unavailable` when the host has brought none that is free */
  async open(hostId: string): Promise<Duplex> {
    const link = this.#links.get(hostId);
    if (!link || link.isUsed || link.stream.destroyed) {
      throw new WrennError(
        'host_unavailable',
        {},
        { cause: new Error(`${hostId} holds no connection to this server`) },
      );
    }
    link.isUsed = true;
    return link.stream;
  }

  /** Ends what a host holds here. */
  drop(hostId: string): void {
    this.#links.get(hostId)?.stream.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const { stream } of this.#links.values()) stream.destroy();
  }
}
