import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { type BackOff, backOffMs } from './back-off.ts';
import { dialLink, type Link } from './dial-link.ts';

const BACK_OFF: BackOff = { firstMs: 200, lastMs: 15_000 };
/** How often is looked whether control planes were added. */
const LOOK_MS = 2000;
/** A link that lasted no longer counts as a failure. */
const STABLE_MS = 10_000;

export interface OutboundLinkOptions {
  /** Where the control planes are reached, all of them by this one address. */
  readonly cpUrl: string;
  readonly hostId: string;
  /** The host's token, as it is at the moment. */
  readonly token: () => string;
  /** The boot id of this process's heartbeats. */
  readonly bootId?: string;
  /** Ids of the control planes that run, as the last heartbeat was told; empty: not known yet. */
  readonly controlPlanes: () => readonly string[];
  /** Serves a stream as if it was a TCP connection that came in. */
  readonly accept: (stream: Duplex) => void;
  /** Ends all of it. */
  readonly signal: AbortSignal;
  readonly log: Logger;
  readonly backOff?: BackOff;
}

/**
 * Keeps one stream open to each control plane, for hosts that no address leads to. Behind one address of several the
 * balancer chooses: it connects until each of them has its own. Failures are tried again for ever.
 *
 * @returns a promise that resolves when the signal has ended it and every stream is closed
 */
export async function startOutboundLink(options: OutboundLinkOptions): Promise<void> {
  const { controlPlanes, accept, signal, log, backOff = BACK_OFF } = options;
  const links = new Map<string, Link>();
  let failures = 0;
  let isNew = true;
  let wake: () => void = () => undefined;

  const pause = () => delay(backOffMs(backOff, ++failures), undefined, { signal }).catch(() => undefined);
  const keep = (link: Link) => {
    links.get(link.controlPlane)?.close();
    links.set(link.controlPlane, link);
    const sinceMs = performance.now();
    void link.closed.then(() => {
      if (links.get(link.controlPlane) === link) links.delete(link.controlPlane);
      if (performance.now() - sinceMs >= STABLE_MS) failures = 0;
      if (!signal.aborted) log.info({ controlPlane: link.controlPlane }, 'the connection to a control plane ended');
      wake();
    });
    isNew = true;
    log.info({ controlPlane: link.controlPlane }, 'connected to a control plane');
    accept(link.stream);
  };
  const needsAnother = () => links.size === 0 || controlPlanes().some((id) => !links.has(id));

  while (!signal.aborted) {
    if (!needsAnother()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      await Promise.race([promise, delay(LOOK_MS, undefined, { signal, ref: false }).catch(() => undefined)]);
      if (needsAnother()) await pause();
      continue;
    }
    const outcome = await dialLink({ ...options, linked: [...links.keys()] });
    if (outcome.kind === 'linked') {
      keep(outcome.link);
      continue;
    }
    if (outcome.kind === 'refused') {
      log[isNew ? 'warn' : 'debug']({ err: outcome.error }, 'cannot connect to a control plane; trying on');
      isNew = false;
    }
    await pause();
  }
  for (const link of links.values()) link.close();
  await Promise.all([...links.values()].map(({ closed }) => closed));
}
