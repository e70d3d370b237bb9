import type { Duplex } from 'node:stream';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { Logger } from 'pino';
import { ArgumentError } from '../arguments.ts';
import type { TakenSamples } from '../metrics/sample-ring.ts';
import type { AgentPki } from '../server/agent-server.ts';
import { ControlPlaneClient } from './control-plane-client.ts';
import { CredentialsError, type HostCredentials, pkiOf, readCredentials } from './credentials.ts';
import { Heartbeats, type HeartbeatTiming } from './heartbeat-sender.ts';
import { type FactsOf, type HeartbeatFacts, registrationFacts } from './host-facts.ts';
import { startOutboundLink } from './outbound-link.ts';
import { isRegisteredWith, register } from './register.ts';
import { Renewal } from './renewal.ts';

export interface FleetOptions {
  /** WRENN_CP_URL. */
  readonly cpUrl: string | undefined;
  /** A registration token. */
  readonly register: string | undefined;
  /** `host:port` at which the control plane reaches this agent. */
  readonly address: string | undefined;
}

export interface JoinOptions extends FleetOptions {
  readonly dir: WrennDir;
  readonly facts: FactsOf;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly patienceMs?: number;
}

/** That this machine is a host of a platform, and which. */
export interface Membership {
  readonly cpUrl: string;
  readonly credentials: HostCredentials;
  /** As this start was told; undefined: as the credentials say. */
  readonly address: string | undefined;
}

/**
 * Registers this machine where it is told to, else goes by what an earlier registration saved.
 *
 * @returns undefined where neither is so: the agent is that of a platform on this machine
 * @throws ArgumentError, RegistrationError, CredentialsError
 */
export async function joinFleet(options: JoinOptions): Promise<Membership | undefined> {
  const { dir, cpUrl, register: token, address, log } = options;
  const saved = await readSaved(options);
  if (token !== undefined && !(saved && isRegisteredWith(saved, token))) {
    return registerAnew(options, token, saved);
  }
  if (!saved) {
    if (cpUrl === undefined && address === undefined) return undefined;
    throw new ArgumentError(
      `This machine is no host of a platform yet: there is no ${dir.hostCredentials}. Make a token with POST /v1/hosts or \`wrenn host create\`, and start the agent once with --register and WRENN_CP_URL. The agent of a platform on this machine needs neither WRENN_CP_URL nor --address.`,
    );
  }
  if (token !== undefined) log.info({ hostId: saved.host_id }, 'this machine is registered with this token already');
  const given = cpUrl ?? saved.cp_url;
  warnOfPlainHttp(given, log);
  return { cpUrl: given, credentials: saved, address };
}

/** A damaged file stands in the way of no new registration. */
async function readSaved({ dir, register: token, log }: JoinOptions): Promise<HostCredentials | undefined> {
  try {
    return await readCredentials(dir);
  } catch (err) {
    if (token === undefined || !(err instanceof CredentialsError)) throw err;
    log.warn({ err }, 'the credentials of before are replaced');
    return undefined;
  }
}

async function registerAnew(
  options: JoinOptions,
  token: string,
  saved: HostCredentials | undefined,
): Promise<Membership> {
  const { address, log } = options;
  const cpUrl = options.cpUrl ?? saved?.cp_url;
  if (cpUrl === undefined) {
    throw new ArgumentError('--register needs the address of the control plane in WRENN_CP_URL.');
  }
  warnOfPlainHttp(cpUrl, log);
  const facts = await registrationFacts(options.facts);
  const credentials = await register({ ...options, cpUrl, token, address, facts });
  const now = { hostId: credentials.host_id, cpUrl, address: address ?? null };
  if (!saved) log.info(now, 'this machine is registered');
  else log.info({ ...now, before: { hostId: saved.host_id, cpUrl: saved.cp_url } }, 'this machine is registered again');
  return { cpUrl, credentials, address };
}

function warnOfPlainHttp(cpUrl: string, log: Logger): void {
  const { protocol, hostname } = new URL(cpUrl);
  if (protocol === 'http:' && !/^(localhost|127\..*|\[::1\])$/.test(hostname)) {
    log.warn({ cpUrl }, 'WRENN_CP_URL is not https: whoever is between can read and take over this host');
  }
}

export interface FleetWorkOptions {
  readonly dir: WrennDir;
  /** How the agent's server learns of new certificates. */
  readonly onRenewed: (pki: AgentPki) => void;
  /** Serves a stream as if it was a connection that came in. */
  readonly accept: (stream: Duplex) => void;
  readonly facts: () => Promise<HeartbeatFacts>;
  readonly takeSamples: () => TakenSamples;
  readonly log: Logger;
  readonly timing?: HeartbeatTiming;
}

/** The work of a host for its platform. Disposing it ends requests that are under way. */
export class FleetWork implements AsyncDisposable {
  readonly renewal: Renewal;
  readonly heartbeats: Heartbeats;
  readonly #stop = new AbortController();
  readonly #running: Promise<unknown>;

  constructor({ cpUrl, credentials, address }: Membership, options: FleetWorkOptions) {
    const { dir, accept, facts, takeSamples, log, timing } = options;
    const client = new ControlPlaneClient(cpUrl);
    const { signal } = this.#stop;
    const onRenewed = (renewed: HostCredentials) => options.onRenewed(pkiOf(renewed));
    this.renewal = new Renewal({ dir, client, credentials, address, onRenewed, log, signal });
    this.heartbeats = new Heartbeats({
      ...{ client, renewal: this.renewal, facts, takeSamples, log, signal },
      ...(timing ? { timing } : {}),
    });
    const { bootId } = this.heartbeats;
    const controlPlanes = () => this.heartbeats.controlPlanes;
    const token = () => this.renewal.current.token;
    // No address leads to it: then it brings the connections itself.
    const linking =
      credentials.address === undefined &&
      startOutboundLink({
        ...{ cpUrl, hostId: credentials.host_id, bootId, token, controlPlanes, accept, log, signal },
      });
    this.#running = Promise.all([this.heartbeats.run(), linking]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
