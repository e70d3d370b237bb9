import { mkdir } from 'node:fs/promises';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { ensureLocalAuthority, ensureLocalPki } from '@wrenn/pki/local-pki';
import { startTracing, type Tracing } from '@wrenn/tracing/tracing';
import type { Logger } from 'pino';
import { OpenConnections, REVOKED_CHANNEL } from './access/open-connections.ts';
import { adminRoutes } from './admin/admin-routes.ts';
import { adminMailRoutes } from './admin/mail-routes.ts';
import { platformCapsuleRoutes } from './admin/platform-capsule-routes.ts';
import { defineEndCapsules } from './admin/users.ts';
import { ensureFirstKey } from './api-keys/first-key.ts';
import { keyRoutes } from './api-keys/key-routes.ts';
import { KeyUse } from './api-keys/key-use.ts';
import { auditLogRoutes } from './audit/audit-log-routes.ts';
import { auditPartitions } from './audit/partitions.ts';
import { AuditTrail } from './audit/trail.ts';
import { UnwrittenEntries } from './audit/unwritten.ts';
import { CapsuleActivity } from './capsules/activity.ts';
import { capsuleRoutes } from './capsules/capsule-routes.ts';
import { capsuleSettingsRoutes } from './capsules/capsule-settings-routes.ts';
import { type CapsulesDeps, destroyAsSystem } from './capsules/capsules.ts';
import { GuestProbes } from './capsules/guest-probes.ts';
import { defineLeftBehind } from './capsules/left-behind.ts';
import { Leftovers } from './capsules/leftovers.ts';
import { lifecycleHandlers } from './capsules/lifecycle.ts';
import { LifetimeWatch } from './capsules/lifetime-watch.ts';
import { reconcileHost } from './capsules/reconcile.ts';
import { pauseAsSystem } from './capsules/sleep.ts';
import { sleepRoutes } from './capsules/sleep-routes.ts';
import { channelRoutes } from './channels/channel-routes.ts';
import type { ChannelsDeps } from './channels/channels.ts';
import { Dispatcher } from './channels/dispatcher.ts';
import { type Database, openDatabase } from './database/database.ts';
import { keepPartitions } from './database/partitions.ts';
import type { Capsule } from './database/schema.ts';
import { Edge } from './edge/edge.ts';
import { extensionRoutes } from './extensions/extension-routes.ts';
import { Extensions } from './extensions/extensions.ts';
import { loadExtensions } from './extensions/load-extensions.ts';
import { fileRoutes } from './guest/file-routes.ts';
import { GuestPool } from './guest/guest-pool.ts';
import { processRoutes } from './guest/process-routes.ts';
import { ptyRoute } from './guest/pty-route.ts';
import { streamRoutes } from './guest/stream-routes.ts';
import { type AgentRouteDeps, agentRoutes } from './hosts/agent-routes.ts';
import { ControlPlanes, controlPlaneId } from './hosts/control-planes.ts';
import { defineDrain, goOnDraining } from './hosts/drain.ts';
import { FleetTrust } from './hosts/fleet-trust.ts';
import { recordHeartbeat } from './hosts/heartbeat.ts';
import type { Host } from './hosts/host.ts';
import { HOSTS_CHANNEL, HostPool } from './hosts/host-pool.ts';
import { hostRoutes } from './hosts/host-routes.ts';
import { ensureHostRow } from './hosts/host-store.ts';
import { type LinkRouteDeps, linkRoute } from './hosts/link-route.ts';
import { OutboundLinks } from './hosts/outbound-links.ts';
import { watchSilence } from './hosts/silence.ts';
import { upkeepRoutes } from './hosts/upkeep-routes.ts';
import { closeServer } from './http/close-server.ts';
import { rememberAnswers } from './http/idempotency.ts';
import type { RouteDeps } from './http/route-deps.ts';
import { createServer, listen, type Server, type ServerOptions } from './http/server.ts';
import { serverRoutes } from './http/server-routes.ts';
import { defineAccountPurge } from './identity/account-purge.ts';
import { accountRoutes } from './identity/account-routes.ts';
import { authRoutes } from './identity/auth-routes.ts';
import { type PasswordCost, Passwords } from './identity/passwords.ts';
import { RateLimits } from './identity/rate-limits.ts';
import { sessionRoutes } from './identity/session-routes.ts';
import { SessionUse } from './identity/session-use.ts';
import { Jobs } from './jobs/jobs.ts';
import { openMailer } from './mail/delivery.ts';
import { publicUrlOf } from './mail/mails.ts';
import { chartRoutes } from './metrics/chart-routes.ts';
import { countErrors } from './metrics/count-errors.ts';
import { createMetrics, type Metrics } from './metrics/metrics.ts';
import { metricsRoute } from './metrics/metrics-route.ts';
import { observed } from './metrics/observe.ts';
import { observeOperations } from './metrics/observe-operations.ts';
import { METRIC_PARTITIONS } from './metrics/partitions.ts';
import { pullSamplesRegularly } from './metrics/pull-samples.ts';
import { storeSamples } from './metrics/store-samples.ts';
import { sampleTeamsRegularly } from './metrics/team-sampler.ts';
import { linkRoutes } from './oauth/link-routes.ts';
import { exchangeRoute, oauthPages } from './oauth/oauth-routes.ts';
import { openProviders } from './oauth/providers.ts';
import { registerOpenApi } from './openapi/openapi.ts';
import { OperationRunner } from './operations/operation-runner.ts';
import { OwnerSession } from './operations/owner-session.ts';
import { pruneOperations } from './operations/prune.ts';
import { Outbound } from './outbound/outbound.ts';
import { passkeyRoutes } from './passkeys/passkey-routes.ts';
import { openSecrets } from './secrets/secrets.ts';
import type { Settings } from './settings.ts';
import { openSharedState, type SharedState } from './shared/shared-state.ts';
import { snapshotRoutes } from './snapshots/snapshot-routes.ts';
import { defineClearTeams } from './teams/clear-teams.ts';
import { invitationRoutes } from './teams/invitation-routes.ts';
import { memberRoutes } from './teams/member-routes.ts';
import { teamRoutes } from './teams/team-routes.ts';
import { traceRequests } from './tracing/trace-requests.ts';
import { twoFactorRoutes } from './two-factor/two-factor-routes.ts';
import { budgetRoutes } from './usage/budget-routes.ts';
import { defineBudgets } from './usage/budget-watch.ts';
import { poolRoutes } from './usage/pool-routes.ts';
import { defineRollUp } from './usage/roll-up.ts';
import { usageRoutes } from './usage/usage-routes.ts';
import { PROGRAM_VERSION } from './version.ts';

/** How long a host may be silent before its capsules count as missing. */
const HOST_SILENCE_MS = 90_000;
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
  /** Only for tests: hashes of passwords that take less. */
  readonly passwordCost?: PasswordCost;
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
  const { otlpEndpoint } = options;
  const tracing = started.use(startTracing({ endpoint: otlpEndpoint, service: 'wrenn-cp', version: PROGRAM_VERSION }));
  const extensions = new Extensions(await loadExtensions(options.extensions));
  await mkdir(dir, { recursive: true, mode: 0o711 });

  const secrets = await openSecrets(dir, options);
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
  const unwritten = new UnwrittenEntries(dir);
  await unwritten.writeAll(db, log);
  const audit = started.use(new AuditTrail({ db, unwritten, log }));
  await ensureFirstKey(db, paths.apiKeyFile);

  const localTrust = { caCertPem: pki.caCertPem, ...pki.controlPlane };
  const fleetTrust = started.use(await FleetTrust.open(options.authority ?? (await ensureLocalAuthority(dir)), log));
  const { hostAgentAddress } = options;
  const localHostId = hostAgentAddress === undefined ? undefined : await ensureHostRow(db, hostAgentAddress);
  const background = started.adopt(new AbortController(), (controller) => controller.abort());
  const { signal } = background;
  const links = started.use(new OutboundLinks((hostId) => (pool.get(hostId) ? pool.nudge(hostId) : pool.changed())));
  const pool: HostPool = started.use(
    new HostPool({
      ...{ db, trust: fleetTrust, localTrust, localHostId, log },
      openLink: (id) => links.open(id),
      eventsOf: (host, left) => {
        left.addEventListener('abort', () => links.drop(host.id));
        const onSynced = (id: string) => goOnDraining({ db, jobs }, id);
        return reconcileHost(host, { db, guests, leftovers, destroy, onSynced, signal: left, log });
      },
    }),
  );
  const hostOf = (id: string) => pool.require(id);
  const allHosts = () => pool.all();
  const guests = started.use(new GuestPool(hostOf));
  // Whoever has work for it defines a queue before it is started below.
  const jobs = started.use(await Jobs.open({ connection: database.connection, log }));
  const mail = started.use(
    openMailer({ db, keyRing: secrets.keyRing, jobs, smtp: options.smtp, publicUrl: publicUrlOf(options), log }),
  );
  const session = started.use(await OwnerSession.open(database.connectClient, log));
  const shared = started.use(
    openSharedState({
      ...{ db, pool: database.pool, redisUrl: options.redisUrl, platformSecret: secrets.jwtSecret },
      ...{ hearer: session, log },
    }),
  );
  const connections = started.use(new OpenConnections(log));
  await session.listen(REVOKED_CHANNEL, (payload) => connections.hear(payload));
  const channels: ChannelsDeps = {
    ...{ db, keyRing: secrets.keyRing, log },
    outbound: new Outbound({ allowedNetworks: options.outboundAllow }),
    sendMail: async (tx, letter) => void (await mail.send(tx, letter)),
  };
  started.use(
    await Dispatcher.start({ ...channels, listen: (channel, onPayload) => session.listen(channel, onPayload) }),
  );
  const leftovers = new Leftovers(db, allHosts, log);
  const metrics = createMetrics(db, allHosts);
  const runner: OperationRunner = started.use(
    new OperationRunner(
      db,
      session,
      observeOperations(lifecycleHandlers({ db, hostOf, guests, leftovers, runner: () => runner, log }), metrics),
      log,
    ),
  );
  const activity = started.use(new CapsuleActivity(db, log));
  const keyUse = started.use(new KeyUse(db, log));
  const sessionUse = started.use(new SessionUse(db, log));
  const capsules: CapsulesDeps = {
    ...{ db, hosts: allHosts, runner, owner: session.owner, leftovers },
    placement: {
      settings: options.placement,
      isReachable: (id) => pool.get(id)?.online === true,
      record: metrics.recordPlacement,
    },
    hasPrices: options.prices !== undefined,
    beforeCapsules: (planned) => extensions.beforeCapsules(planned),
  };
  defineClearTeams(jobs, capsules, log);
  defineEndCapsules(jobs, capsules);
  defineLeftBehind(jobs, { db, pool, destroy: (capsule) => destroyAsSystem(capsules, capsule), log });
  defineDrain(jobs, capsules, log);
  defineAccountPurge(jobs, { db, mail }, log);
  defineRollUp(jobs, db, log);
  const { prices } = options;
  defineBudgets(jobs, { db, prices, pause: (capsule) => pauseAsSystem(capsules, capsule), log });

  await extensions.register({ db, jobs, mail, secrets, settings: options, capsules }, log);

  const destroy = (capsule: Capsule) => destroyAsSystem(capsules, capsule);
  await session.listen(HOSTS_CHANNEL, () => pool.changed());
  await pool.start();
  const watching = watchSilence({
    ...{ db, hosts: allHosts, signal, log },
    silenceMs: options.hostSilenceMs ?? HOST_SILENCE_MS,
  });
  const controlPlanes = new ControlPlanes(db);
  const probes = new GuestProbes(guests);
  const lifetimes = new LifetimeWatch({
    db,
    activity,
    probes,
    probeTimeoutMs: options.probeTimeoutMs,
    log,
    end: (capsule, isDue) =>
      (capsule.onTimeout === 'pause' ? pauseAsSystem : destroyAsSystem)(capsules, capsule, isDue),
  });
  // Whatever brings a capsule to run is an operation.
  session.onFinish(() => lifetimes.wake());
  const timing = lifetimes.run(signal);
  const clearing = leftovers.run(signal);
  const pruning = pruneOperations(db, signal, log);
  const partitions = [auditPartitions(options.auditRetentionDays), ...METRIC_PARTITIONS];
  const partitioning = keepPartitions(db, partitions, signal, log);
  const sampling = sampleTeamsRegularly({ db, signal, log });
  const pulling = pullSamplesRegularly({ db, hosts: allHosts, signal, log });
  const working = extensions.run(signal);
  started.defer(async () => {
    background.abort();
    await Promise.all([working, watching, timing, clearing, pruning, partitioning, sampling, pulling]);
  });
  await jobs.start();
  // Before what jobs work with ends.
  started.defer(() => jobs[Symbol.asyncDispose]());
  await runner.start();

  const { publicUrl, trustedProxies } = options;
  const { jwtSecret } = secrets;
  const rateLimits = new RateLimits(shared.limiterOf, options.rateLimitFactor);
  const uses = { keyUse, sessionUse };
  const serverOptions = { db, jwtSecret, publicUrl, trustedProxies, rateLimits, connections, audit, ...uses };
  const heartbeats = { db, pool, controlPlanes, storeSamples, log };
  const app = await buildServer(
    log,
    serverOptions,
    database,
    allHosts,
    channels,
    extensions,
    { metrics, tracing },
    {
      settings: options,
      secrets,
      audit,
      jobs,
      mail,
      db,
      capsules,
      guests,
      activity,
      probes,
      lifetimes,
      hostOf,
      keyUse,
      passwords: new Passwords(options.passwordCost),
      rateLimits,
      tokens: shared.tokens,
      checkRedis: shared.checkRedis,
      connections,
      fleetTrust,
      links,
      controlPlaneId: controlPlaneId(session.owner),
      recordHeartbeat: (hostId, heartbeat) =>
        observed(metrics.recordHeartbeat, () => recordHeartbeat(heartbeats, hostId, heartbeat)),
    },
  );
  metricsRoute(app, metrics);
  // What requests leave for it is put away first: what else ends below may wait for a database that does not answer.
  started.defer(() => audit[Symbol.asyncDispose]());
  started.defer(() => closeServer(app, links, options.drainMs ?? DRAIN_MS));
  const port = await listen(app, options.listen.host, options.listen.port);
  const running = started.move();
  return { port, apiKeyFile: paths.apiKeyFile, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

async function buildServer(
  log: Logger,
  options: ServerOptions,
  database: Database,
  hosts: () => readonly Host[],
  channels: ChannelsDeps,
  extensions: Extensions,
  { metrics, tracing }: { readonly metrics: Metrics; readonly tracing: Tracing },
  deps: RouteDeps & AgentRouteDeps & LinkRouteDeps & Pick<SharedState, 'checkRedis'>,
): Promise<Server> {
  const app = await createServer(log, options);
  traceRequests(app, tracing.tracer);
  countErrors(app, metrics);
  const { jwtSecret, keyRing } = deps.secrets;
  rememberAnswers(app, { db: deps.db, keyRing, jwtSecret, runner: deps.capsules.owner });
  const edge = new Edge(deps, log);
  edge.intercept(app.server);
  app.addHook('preClose', async () => edge.close());
  await registerOpenApi(app);
  const { checkRedis } = deps;
  serverRoutes(app, { database, hosts, checkRedis, needsHost: deps.settings.hostAgentAddress !== undefined });
  const providers = openProviders(deps.settings.oauth);
  oauthPages(app, deps, providers, { hide: false });
  await app.register(
    async (v1: Server) => {
      capsuleRoutes(v1, deps);
      sleepRoutes(v1, deps);
      snapshotRoutes(v1, deps);
      capsuleSettingsRoutes(v1, deps);
      processRoutes(v1, deps);
      streamRoutes(v1, deps);
      ptyRoute(v1, deps);
      fileRoutes(v1, deps);
      teamRoutes(v1, deps);
      memberRoutes(v1, deps);
      channelRoutes(v1, channels, deps.rateLimits);
      invitationRoutes(v1, deps);
      adminRoutes(v1, deps);
      adminMailRoutes(v1, deps);
      platformCapsuleRoutes(v1, deps);
      authRoutes(v1, deps);
      accountRoutes(v1, deps);
      sessionRoutes(v1, deps);
      keyRoutes(v1, deps);
      auditLogRoutes(v1, deps);
      oauthPages(v1, deps, providers, { hide: true });
      exchangeRoute(v1, deps);
      linkRoutes(v1, deps, providers);
      twoFactorRoutes(v1, deps);
      passkeyRoutes(v1, deps);
      hostRoutes(v1, deps);
      upkeepRoutes(v1, deps);
      usageRoutes(v1, deps);
      poolRoutes(v1, deps);
      budgetRoutes(v1, deps);
      agentRoutes(v1, deps);
      linkRoute(v1, deps);
      chartRoutes(v1, deps);
      extensionRoutes(v1, extensions.names);
    },
    { prefix: '/v1' },
  );
  await extensions.addRoutes(app);
  return app;
}
