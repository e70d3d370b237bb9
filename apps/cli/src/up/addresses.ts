import { once } from 'node:events';
import { createServer } from 'node:net';
import { type ListenAddress, listenAddress, readEnvironment } from '@wrenn/config/environment';
import { freePorts } from '@wrenn/config/free-port';
import { z } from 'zod';
import { CliError, systemCodeOf } from '../cli-error.ts';

/** Where the two programs listen, as their environment says it. */
export interface PlatformAddresses {
  readonly api: ListenAddress;
  readonly agent: ListenAddress;
  /** What the control plane calls; by default the agent beside it. */
  readonly agentUrl: string;
}

/** The agent of a one-machine platform has no business on other addresses than this machine's own. */
const DEFAULT_AGENT = { host: '127.0.0.1', port: 50_051 };

export function readAddresses(env: Readonly<Record<string, string | undefined>> = process.env): PlatformAddresses {
  const given = readEnvironment(
    {
      WRENN_CP_LISTEN_ADDR: listenAddress.default({ host: undefined, port: 8000 }),
      WRENN_HOST_LISTEN_ADDR: listenAddress.default(DEFAULT_AGENT),
      CP_HOST_AGENT_ADDR: z.string().optional(),
    },
    env,
  );
  const agent = given.WRENN_HOST_LISTEN_ADDR;
  const agentUrl = given.CP_HOST_AGENT_ADDR ?? `https://${reachable(agent)}:${agent.port}`;
  return { api: given.WRENN_CP_LISTEN_ADDR, agent, agentUrl };
}

/** Addresses on this machine at ports that are free now. */
export async function freeAddresses(): Promise<PlatformAddresses> {
  const [api, agent] = await freePorts(2);
  return {
    api: { host: '127.0.0.1', port: api },
    agent: { host: '127.0.0.1', port: agent },
    agentUrl: `https://127.0.0.1:${agent}`,
  };
}

/** The address that a client on this machine uses for a server. */
export function baseUrlOf({ host, port }: ListenAddress): string {
  return `http://${reachable({ host, port })}:${port}`;
}

/** `127.0.0.1:8000`, `[::1]:8000` or `:8000`, as `listenAddress` reads it. */
export function formatListenAddress({ host, port }: ListenAddress): string {
  return `${host === undefined ? '' : bracketed(host)}:${port}`;
}

function reachable({ host }: ListenAddress): string {
  if (host === undefined || host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return bracketed(host);
}

function bracketed(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

/** @throws CliError when something listens there already, naming the variable that moves us elsewhere. */
export async function checkAddressFree(address: ListenAddress, what: string, variable: string): Promise<void> {
  const problem = await tryToListen(address);
  if (problem === undefined) return;
  const reason = problem === 'EADDRINUSE' ? 'another program listens there' : problem;
  throw new CliError(
    `${what} cannot listen on ${formatListenAddress(address)}: ${reason}.`,
    `Stop that program (\`ss -ltnp\` shows it), or set ${variable} to another address, such as 127.0.0.1:${address.port + 1}.`,
  );
}

/** Undefined when it works, else the system's code of the error. */
async function tryToListen({ host, port }: ListenAddress): Promise<string | undefined> {
  const server = createServer();
  try {
    server.listen({ host, port });
    await once(server, 'listening');
    server.close();
    await once(server, 'close');
    return undefined;
  } catch (error) {
    return systemCodeOf(error) ?? 'unknown error';
  }
}
