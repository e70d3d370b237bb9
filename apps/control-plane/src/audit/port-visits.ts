import type { Actor } from '../access/actor.ts';
import { toCatalogue } from '../http/error-handler.ts';
import type { AuditSink } from './trail.ts';

const WINDOW_MS = 60_000;
/** Different visits in one window; more are recorded one by one. */
const MAX_KNOWN = 50_000;

/** A request to a port of a capsule. */
export interface PortVisit {
  readonly teamId: string;
  readonly actor: Actor;
  readonly capsuleId: string;
  readonly port: number;
}

/**
 * Records who uses which ports of capsules: one entry a minute for each key, capsule, port and result, with its first
 * request. A page is hundreds of requests that tell nothing new.
 */
export class PortVisits {
  readonly #sink: AuditSink;
  readonly #now: () => number;
  readonly #known = new Set<string>();
  #endsMs = 0;

  /** @param now milliseconds */
  constructor(sink: AuditSink, now: () => number = Date.now) {
    this.#sink = sink;
    this.#now = now;
  }

  /** @param error why the visit was refused */
  note({ teamId, actor, capsuleId, port }: PortVisit, error?: unknown): void {
    const now = this.#now();
    if (now >= this.#endsMs || this.#known.size >= MAX_KNOWN) {
      this.#known.clear();
      this.#endsMs = now - (now % WINDOW_MS) + WINDOW_MS;
    }
    const code = error === undefined ? undefined : toCatalogue(error).code;
    const visit = [actor.id, actor.address, capsuleId, port, code].join(' ');
    if (this.#known.has(visit)) return;
    this.#known.add(visit);
    this.#sink.add({
      teamId,
      actor,
      resourceType: 'capsule',
      resourceId: capsuleId,
      action: 'port',
      scope: 'team',
      status: code ? 'error' : 'success',
      metadata: { port: Number.isNaN(port) ? null : port, ...(code ? { code } : {}) },
    });
  }
}
