import { withEarlierNames } from '@wrenn/config/earlier-names';
import { absolutePath, EnvironmentError, listenAddress, readEnvironment } from '@wrenn/config/environment';
import { chooseHypervisor, hypervisorEnvironment, NoHypervisorError } from '@wrenn/hypervisor/choose-hypervisor';
import pino from 'pino';
import { z } from 'zod';
import { startAgent } from './agent.ts';
import { ArgumentError, HELP, readArguments } from './arguments.ts';
import { controlPlaneUrl } from './fleet/control-plane-client.ts';
import { CredentialsError } from './fleet/credentials.ts';
import { RegistrationError } from './fleet/register.ts';
import { AGENT_VERSION } from './version.ts';

const environment = {
  WRENN_DIR: absolutePath.default('/var/lib/wrenn'),
  WRENN_HOST_LISTEN_ADDR: listenAddress.default({ host: undefined, port: 50_051 }),
  WRENN_AGENT_METRICS_ADDR: listenAddress.optional(),
  WRENN_CP_URL: controlPlaneUrl.optional(),
  OTEL_EXPORTER_OTLP_ENDPOINT: z.url({ protocol: /^https?$/ }).optional(),
  WRENN_OBJECT_STORE: z.string().optional(),
  WRENN_WARM_POOL_MAX_MB: z.coerce.number().int().min(0).optional(),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  ...hypervisorEnvironment,
};

const EARLIER_NAMES = {
  AGENT_FILES_ROOTDIR: 'WRENN_DIR',
  AGENT_LISTEN_ADDR: 'WRENN_HOST_LISTEN_ADDR',
  AGENT_CP_URL: 'WRENN_CP_URL',
};

/** Their messages say everything that whoever starts the agent needs. */
const EXPECTED = [ArgumentError, EnvironmentError, NoHypervisorError, RegistrationError, CredentialsError];

/** Runs wrenn-agent until SIGTERM or SIGINT. */
async function main(): Promise<void> {
  const command = readArguments(process.argv.slice(2));
  if (command.kind !== 'run') {
    process.stdout.write(command.kind === 'help' ? HELP : `wrenn-agent ${AGENT_VERSION}\n`);
    return;
  }
  const env = readEnvironment(environment, withEarlierNames(process.env, EARLIER_NAMES));
  const log = pino({ level: env.LOG_LEVEL, name: 'wrenn-agent' });
  const { hypervisor, explanation } = await chooseHypervisor();
  log.info({ explanation }, 'hypervisor chosen');
  const agent = await startAgent({
    wrennDir: env.WRENN_DIR,
    listen: env.WRENN_HOST_LISTEN_ADDR,
    otlpEndpoint: env.OTEL_EXPORTER_OTLP_ENDPOINT,
    metricsListen: env.WRENN_AGENT_METRICS_ADDR,
    hypervisor,
    warmPoolMaxMb: env.WRENN_WARM_POOL_MAX_MB,
    fleet: { cpUrl: env.WRENN_CP_URL, register: command.register, address: command.address },
    log,
    ...(env.WRENN_OBJECT_STORE === undefined ? {} : { objectStoreUrl: env.WRENN_OBJECT_STORE }),
  });
  const signalName = await new Promise<string>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  log.info({ signal: signalName }, 'stopping; VMs go on running');
  await agent[Symbol.asyncDispose]();
  log.info('stopped');
}

try {
  await main();
} catch (error) {
  const expected = EXPECTED.some((kind) => error instanceof kind);
  process.stderr.write(`wrenn-agent: ${error instanceof Error ? (expected ? error.message : error.stack) : error}\n`);
  process.exitCode = 1;
}
