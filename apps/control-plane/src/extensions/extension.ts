import type { WrennError } from '@wrenn/protocol/errors';
import type { sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import type { z } from 'zod';
import type { recordAudit } from '../audit/record.ts';
import type { publishEvent } from '../events/publish.ts';
import type { RouteDeps } from '../http/route-deps.ts';
import type { Server } from '../http/server.ts';

/** What a module that WRENN_EXTENSIONS names exports as `extension`. */
export interface Extension {
  /** Lower-case letters, digits and dashes; its routes are below `/v1/x/{name}` unless it has a prefix. */
  readonly name: string;
  /** Where its routes are instead: a path below `/v1/` that the core has no route of. */
  readonly prefix?: string;
  /** Called once at each start, before anything is served. What it throws stops the start. */
  register(context: ExtensionContext): void | Promise<void>;
}

/** What an extension works with, and where it puts what it adds. */
export interface ExtensionContext
  extends Pick<RouteDeps, 'db' | 'jobs' | 'mail' | 'secrets' | 'settings' | 'capsules'> {
  readonly log: Logger;
  /** Writes an entry of the audit log, within the transaction of what it tells of. */
  readonly recordAudit: typeof recordAudit;
  /** Tells the team's channels of something, within its transaction. */
  readonly publishEvent: typeof publishEvent;
  /** This program's own, so that an extension needs no copy: errors of a copy would not be known as such. */
  readonly WrennError: typeof WrennError;
  readonly z: typeof z;
  readonly sql: typeof sql;
  /**
   * Adds routes after those of the core. Each names a permission of the core's table and is described, as every route;
   * who is not allowed does not reach it.
   */
  routes(add: (app: Server) => void | Promise<void>): void;
  /**
   * Does something in the background until the signal fires, which `run` must heed. One that fails is logged and begun
   * again. Work that must not be lost, or be done once by several control planes, is for `jobs`.
   */
  work(name: string, run: (signal: AbortSignal) => Promise<void>): void;
  /** Is asked before capsules are made. It refuses by throwing a WrennError, such as `refused_by_extension`. */
  beforeCapsules(check: CapsulesCheck): void;
}

/** @param signal fires when it takes too long; then nothing is made */
export type CapsulesCheck = (planned: PlannedCapsules, signal: AbortSignal) => Promise<void>;

/** Capsules that somebody wants made. */
export interface PlannedCapsules {
  readonly teamId: string;
  /** Id of the user or API key. */
  readonly actor: string;
  readonly by: 'create' | 'fork';
  readonly count: number;
  /** Of each. */
  readonly template: string;
  readonly vcpus: number;
  readonly memoryMb: number;
  readonly labels: Readonly<Record<string, string>>;
}
