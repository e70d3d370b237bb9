import { setTimeout as delay } from 'node:timers/promises';
import { WrennError } from '@wrenn/protocol/errors';
import { sql } from 'drizzle-orm';
import type { Logger } from 'pino';
import { z } from 'zod';
import { recordAudit } from '../audit/record.ts';
import { publishEvent } from '../events/publish.ts';
import type { Server } from '../http/server.ts';
import type { CapsulesCheck, Extension, ExtensionContext, PlannedCapsules } from './extension.ts';
import { messageOf } from './load-extensions.ts';

/** How long one check of new capsules may take. */
const CHECK_MS = 5000;
const RESTART_MS = 5000;

/** What an extension is given that differs between platforms. */
export type ExtensionDeps = Pick<ExtensionContext, 'db' | 'jobs' | 'mail' | 'secrets' | 'settings' | 'capsules'>;

type AddRoutes = Parameters<ExtensionContext['routes']>[0];

interface Worker {
  readonly name: string;
  readonly log: Logger;
  readonly run: (signal: AbortSignal) => Promise<void>;
}

/** The extensions of a control plane, and what they have added. */
export class Extensions {
  readonly #routes: { readonly extension: Extension; readonly add: AddRoutes }[] = [];
  readonly #workers: Worker[] = [];
  readonly #checks: { readonly name: string; readonly check: CapsulesCheck }[] = [];
  readonly #all: readonly Extension[];

  readonly #restartMs: number;

  /** @param restartMs how long work that failed waits before it is begun again */
  constructor(extensions: readonly Extension[], restartMs = RESTART_MS) {
    this.#all = extensions;
    this.#restartMs = restartMs;
  }

  get names(): string[] {
    return this.#all.map(({ name }) => name);
  }

  /** Has every extension say what it adds. Before jobs are begun. @throws Error that names the one that failed */
  async register(deps: ExtensionDeps, log: Logger): Promise<void> {
    for (const extension of this.#all) {
      const { name } = extension;
      const own = log.child({ extension: name });
      await naming(name, async () =>
        extension.register({
          ...deps,
          ...{ log: own, recordAudit, publishEvent, WrennError, z, sql },
          routes: (add) => this.#routes.push({ extension, add }),
          work: (work, run) => this.#workers.push({ name: work, log: own, run }),
          beforeCapsules: (check) => this.#checks.push({ name, check }),
        }),
      );
      own.info('uses an extension');
    }
  }

  /** After those of the core. @throws Error that names the one whose routes cannot be added */
  async addRoutes(app: Server): Promise<void> {
    for (const { extension, add } of this.#routes) {
      const { name, prefix = `/v1/x/${name}` } = extension;
      await naming(name, async () => {
        await app.register(async (scope: Server) => add(scope), { prefix });
      });
    }
  }

  /** Runs the background work of all until the signal fires, and resolves when all of it has ended. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#workers.map((worker) => keepWorking(worker, this.#restartMs, signal)));
  }

  /**
   * Asks every extension whether capsules may be made.
   *
   * @throws WrennError what one refuses with; `deadline_exceeded`
   */
  async beforeCapsules(planned: PlannedCapsules): Promise<void> {
    for (const { name, check } of this.#checks) {
      const signal = AbortSignal.timeout(CHECK_MS);
      const late = Promise.withResolvers<never>();
      const fail = () =>
        late.reject(new WrennError('deadline_exceeded', { what: `The extension ${name}`, timeout_ms: CHECK_MS }));
      signal.addEventListener('abort', fail, { once: true });
      try {
        await Promise.race([check(planned, signal), late.promise]);
      } finally {
        signal.removeEventListener('abort', fail);
      }
    }
  }
}

async function naming(name: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    throw new Error(`The extension ${name} cannot be used: ${messageOf(cause)}`, { cause });
  }
}

async function keepWorking({ name, log, run }: Worker, restartMs: number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await run(signal);
      return;
    } catch (err) {
      if (signal.aborted) return;
      log.error({ err, work: name }, 'the work of an extension failed, and is begun again');
    }
    await delay(restartMs, undefined, { signal }).catch(() => undefined);
  }
}
