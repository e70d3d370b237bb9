import { WrennError } from '@wrenn/protocol/errors';
import type { FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { z } from 'zod';
import type { Db } from '../database/database.ts';
import { announce } from '../shared/announce.ts';

/** Channel on which control planes tell each other whose access ended. */
export const REVOKED_CHANNEL = 'wrenn_access_revoked';

/** RFC 6455, 7.4.1: closed because of a policy. */
const CLOSE_POLICY = 1008;
/** How long a client has to close its side. */
const CLOSING_MS = 2000;
/** How often connections are looked at whose session or key may have run out, or of whose end nothing was heard. */
const RECHECK_MS = 60_000;

const revocationSchema = z
  .object({
    sessionId: z.string().optional(),
    userId: z.string().optional(),
    keyId: z.string().optional(),
    teamId: z.string().optional(),
  })
  .strict();

/** Whose access ended: connections of which every field that is given is true. */
export type Revocation = z.output<typeof revocationSchema>;

/** Who a connection belongs to. */
export interface ConnectionOwner {
  readonly sessionId: string | undefined;
  /** The person; of a key, the one whose own it is. */
  readonly userId: string | undefined;
  readonly keyId: string | undefined;
  readonly teamId: string | undefined;
}

interface OpenConnection {
  readonly owner: ConnectionOwner;
  /** Throws a WrennError when the credential is good for it no more. */
  readonly recheck: () => Promise<void>;
  readonly forget: () => void;
}

/** The part of a WebSocket that ends it. */
interface ClosableSocket {
  close(code: number, reason: string): void;
  terminate(): void;
}

type RawRequest = FastifyRequest['raw'];

/**
 * Ends, on every control plane, what is open on an access that the transaction takes away, as soon as it is committed.
 * Requests that come later are refused by what the transaction wrote.
 */
export async function revokeConnections(tx: Db, revocation: Revocation): Promise<void> {
  if (Object.values(revocation).every((id) => id === undefined)) throw new Error('this would close every connection');
  await announce(tx, REVOKED_CHANNEL, JSON.stringify(revocation));
}

/** Undefined: another version of this program wrote it. */
function readRevocation(payload: string): Revocation | undefined {
  try {
    return revocationSchema.parse(JSON.parse(payload));
  } catch {
    return undefined;
  }
}

/** What is open in this process and lasts: WebSockets, and requests that work inside a capsule or go to its ports. */
export class OpenConnections implements Disposable {
  readonly #open = new Map<RawRequest, OpenConnection>();
  readonly #sockets = new WeakMap<RawRequest, ClosableSocket>();
  readonly #log: Logger;
  readonly #timer: NodeJS.Timeout;
  #isDue = false;
  #heard = 0;
  #rechecking = false;

  constructor(log: Logger) {
    this.#log = log;
    this.#timer = setInterval(() => void this.recheck(), RECHECK_MS);
    this.#timer.unref();
  }

  /**
   * Counts a request as open until its connection ends, or `forget`.
   *
   * @param heardBefore `heard` from before its access was looked at
   */
  add(
    { raw }: Pick<FastifyRequest, 'raw'>,
    owner: ConnectionOwner,
    recheck: () => Promise<void>,
    heardBefore: number,
  ): void {
    if (raw.socket.destroyed) return;
    const forget = () => {
      raw.socket.off('close', forget);
      this.#open.delete(raw);
    };
    raw.socket.once('close', forget);
    const connection = { owner, recheck, forget };
    this.#open.set(raw, connection);
    // It may have been this one, which was not yet among the open.
    if (this.#heard !== heardBefore) void this.#check(raw, connection);
  }

  /** How often access was said to have ended: whoever asks the database afterwards hears of it there. */
  get heard(): number {
    return this.#heard;
  }

  /** It was answered. */
  forget({ raw }: Pick<FastifyRequest, 'raw'>): void {
    this.#open.get(raw)?.forget();
  }

  /** The request became a WebSocket, which can be told why it is closed. */
  upgrade(raw: RawRequest, socket: ClosableSocket): void {
    this.#sockets.set(raw, socket);
  }

  /** @param payload what came on REVOKED_CHANNEL; undefined when something may have been missed */
  hear(payload: string | undefined): void {
    this.#heard += 1;
    const revocation = payload === undefined ? undefined : readRevocation(payload);
    if (!revocation) {
      void this.recheck();
      return;
    }
    const wanted = Object.entries(revocation) as [keyof Revocation, string][];
    for (const [raw, connection] of this.#open) {
      if (wanted.every(([field, id]) => connection.owner[field] === id)) this.#close(raw, connection);
    }
  }

  /** Closes what the database says is allowed no more. */
  async recheck(): Promise<void> {
    this.#isDue = true;
    if (this.#rechecking) return;
    this.#rechecking = true;
    while (this.#isDue) {
      // Who asks meanwhile may have missed what ended behind this round.
      this.#isDue = false;
      for (const [raw, connection] of this.#open) await this.#check(raw, connection);
    }
    this.#rechecking = false;
  }

  async #check(raw: RawRequest, connection: OpenConnection): Promise<void> {
    try {
      await connection.recheck();
    } catch (error) {
      // That nobody can say is no reason to end anything.
      if (error instanceof WrennError && error.http < 500) this.#close(raw, connection);
      else this.#log.warn({ err: error }, 'could not look whether a connection is still allowed');
    }
  }

  #close(raw: RawRequest, { owner, forget }: OpenConnection): void {
    if (!this.#open.has(raw)) return;
    forget();
    this.#log.info({ ...owner }, 'closed a connection whose access ended');
    const socket = this.#sockets.get(raw);
    if (!socket) {
      raw.socket.destroy();
      return;
    }
    socket.close(CLOSE_POLICY, 'access was revoked');
    setTimeout(() => socket.terminate(), CLOSING_MS).unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
