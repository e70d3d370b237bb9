import { mkdir } from 'node:fs/promises';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { ensureLocalPki } from '@wrenn/pki/local-pki';
import type { Logger } from 'pino';
import { CapsuleActivity } from './capsules/activity.ts';
import { capsuleRoutes } from './capsules/capsule-routes.ts';
import { capsuleSettingsRoutes } from './capsules/capsule-settings-routes.ts';
import { type CapsulesDeps, destroyAsSystem } from './capsules/capsules.ts';
import { GuestProbes } from './capsules/guest-probes.ts';
import { Leftovers } from './capsules/leftovers.ts';
import { lifecycleHandlers } from './capsules/lifecycle.ts';
import { LifetimeWatch } from './capsules/lifetime-watch.ts';
import { reconcileHost } from './capsules/reconcile.ts';
import { pauseAsSystem } from './capsules/sleep.ts';
import { sleepRoutes } from './capsules/sleep-routes.ts';
import { type Database, openDatabase } from './database/database.ts';
import type { Capsule } from './database/schema.ts';
import { Edge } from './edge/edge.ts';
import { fileRoutes } from './guest/file-routes.ts';
import { GuestPool } from './guest/guest-pool.ts';
import { processRoutes } from './guest/process-routes.ts';
import { ptyRoute } from './guest/pty-route.ts';
import { streamRoutes } from './guest/stream-routes.ts';
import { type Host, openHost } from './hosts/host.ts';
import { ensureHostRow } from './hosts/host-store.ts';
import { watchHost } from './hosts/watch.ts';
import type { RouteDeps } from './http/route-deps.ts';
import { createServer, listen, readKey, type Server } from './http/server.ts';
import { serverRoutes } from './http/server-routes.ts';
import { authenticate, ensureFirstKey } from './identity/api-keys.ts';
import { createMetrics } from './metrics/metrics.ts';
import { metricsRoute } from './metrics/metrics-route.ts';
import { observeOperations } from './metrics/observe-operations.ts';
import { registerOpenApi } from './openapi/openapi.ts';
import { OperationRunner } from './operations/operation-runner.ts';
import { OwnerSession } from './operations/owner-session.ts';
import { pruneOperations } from './operations/prune.ts';
import type { Settings } from './settings.ts';
import { snapshotRoutes } from './snapshots/snapshot-routes.ts';

/** How long a host may be silent before its capsules count as missing. */
const HOST_SILENCE_MS = 15_000;
/** How long open requests may take to end when the server stops. */
const DRAIN_MS = 10_000;

export interface ControlPlaneOptions extends Settings {
  readonly log: Logger;
  /** Only for tests: commits of the embedded database need not reach the disk. */
  readonly durable?: boolean;
  /** Only for tests: another time of grace for a silent host. */
  readonly hostSilenceMs?: number;
  /** Only for tests: another time for a guest to say whether it is at work. */
  readonly probeTimeoutMs?: number;
  /** Only for tests: another time for open requests to end when the server stops. */
  readonly drainMs?: number;
}

/** A control plane that serves. Disposing it ends open requests, then everything else, the embedded database last. */
export interface ControlPlane extends AsyncDisposable {
  /** Port that it listens on. */
  readonly port: number;
  /** File that holds the first API key. */
  readonly apiKeyFile: string;
}

/** Starts a control plane. Resolves when it takes requests; the host may come later. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const { wrennDir: dir, databaseUrl, log } = options;
  const paths = wrennDir(dir);
  await using started = new AsyncDisposableStack();
  await mkdir(dir, { recursive: true, mode: 0o711 });

  const pki = await ensureLocalPki(dir);
  const database = started.use(
    await openDatabase({
      url: databaseUrl,
      dir,
      log,
      ...(options.durable === undefined ? {} : { durable: options.durable }),
    }),
  );
  const { db } = database;
  await ensureFirstKey(db, paths.apiKeyFile);

  const trust = { caCertPem: pki.caCertPem, ...pki.controlPlane };
  const hostId = await ensureHostRow(db, options.hostAgentAddress);
  const host = started.use(openHost(hostId, options.hostAgentAddress, trust, log));
  const hostOf = (id: string) => {
    if (id !== host.id) throw new Error(`host ${id} is not configured; CP_HOST_AGENT_ADDR names ${host.address}`);
    return host;
  };
  const guests = started.use(new GuestPool(hostOf));
  const session = started.use(await OwnerSession.open(database.connectClient, log));
  const leftovers = new Leftovers(db, () => [host], log);
  const metrics = createMetrics(db, () => [host]);
  const runner: OperationRunner = started.use(
    new OperationRunner(
      db,
      session,
      observeOperations(lifecycleHandlers({ db, hostOf, guests, leftovers, runner: () => runner, log }), metrics),
      log,
    ),
  );
  const activity = started.use(new CapsuleActivity(db, log));
  const capsules: CapsulesDeps = { db, hosts: () => [host], runner, owner: session.owner, leftovers };

  const background = started.adopt(new AbortController(), (controller) => controller.abort());
  const { signal } = background;
  const destroy = (capsule: Capsule) => destroyAsSystem(capsules, capsule);
  const watching = watchHost(host, reconcileHost(host, { db, guests, leftovers, destroy, signal, log }), {
    silenceMs: options.hostSilenceMs ?? HOST_SILENCE_MS,
    signal,
    log,
  });
  const probes = new GuestProbes(guests);
  const lifetimes = new LifetimeWatch({
    db,
    activity,
    probes,
    probeTimeoutMs: options.probeTimeoutMs,
    log,
    end: (capsule) => (capsule.onTimeout === 'pause' ? pauseAsSystem : destroyAsSystem)(capsules, capsule),
  });
  // Whatever brings a capsule to run is an operation.
  session.onFinish(() => lifetimes.wake());
  const timing = lifetimes.run(signal);
  const clearing = leftovers.run(signal);
  const pruning = pruneOperations(db, signal, log);
  started.defer(async () => {
    background.abort();
    await Promise.all([watching, timing, clearing, pruning]);
  });
  await runner.start();

  const app = await buildServer(log, database, [host], { db, capsules, guests, activity, probes, lifetimes, hostOf });
  metricsRoute(app, db, metrics);
  started.defer(() => closeServer(app, options.drainMs ?? DRAIN_MS));
  const port = await listen(app, options.listen.host, options.listen.port);
  const running = started.move();
  return { port, apiKeyFile: paths.apiKeyFile, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

async function buildServer(log: Logger, database: Database, hosts: readonly Host[], deps: RouteDeps): Promise<Server> {
  const app = await createServer(log);
  const edge = new Edge(deps, log);
  edge.intercept(app.server);
  app.addHook('preClose', async () => edge.close());
  await registerOpenApi(app);
  serverRoutes(app, database, () => hosts);
  await app.register(
    async (v1: Server) => {
      v1.addHook('onRequest', async (request) => {
        request.caller = await authenticate(deps.db, readKey(request));
      });
      capsuleRoutes(v1, deps);
      sleepRoutes(v1, deps);
      snapshotRoutes(v1, deps);
      capsuleSettingsRoutes(v1, deps);
      processRoutes(v1, deps);
      streamRoutes(v1, deps);
      ptyRoute(v1, deps);
      fileRoutes(v1, deps);
    },
    { prefix: '/v1' },
  );
  return app;
}

/** Lets open requests end for a while, then ends them. */
async function closeServer(app: Server, drainMs: number): Promise<void> {
  const cutOff = setTimeout(() => app.server.closeAllConnections(), drainMs);
  try {
    for (const socket of app.websocketServer.clients) socket.close(1001, 'the server is stopping');
    await app.close();
  } finally {
    clearTimeout(cutOff);
  }
}
