import { absolutePath, EnvironmentError, listenAddress, readEnvironment } from '@wrenn/config/environment';
import { chooseHypervisor, hypervisorEnvironment, NoHypervisorError } from '@wrenn/hypervisor/choose-hypervisor';
import pino from 'pino';
import { z } from 'zod';
import { startAgent } from './agent.ts';

const environment = {
  WRENN_DIR: absolutePath.default('/var/lib/wrenn'),
  WRENN_HOST_LISTEN_ADDR: listenAddress.default({ host: undefined, port: 50_051 }),
  WRENN_OBJECT_STORE: z.string().optional(),
  WRENN_WARM_POOL_MAX_MB: z.coerce.number().int().min(0).optional(),
  LOG_LEVEL: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  ...hypervisorEnvironment,
};

/** Runs wrenn-agent until SIGTERM or SIGINT. */
async function main(): Promise<void> {
  const env = readEnvironment(environment);
  const log = pino({ level: env.LOG_LEVEL, name: 'wrenn-agent' });
  const { hypervisor, explanation } = await chooseHypervisor();
  log.info({ explanation }, 'hypervisor chosen');
  const agent = await startAgent({
    wrennDir: env.WRENN_DIR,
    listen: env.WRENN_HOST_LISTEN_ADDR,
    hypervisor,
    warmPoolMaxMb: env.WRENN_WARM_POOL_MAX_MB,
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
  const expected = error instanceof EnvironmentError || error instanceof NoHypervisorError;
  process.stderr.write(`wrenn-agent: ${error instanceof Error ? (expected ? error.message : error.stack) : error}\n`);
  process.exitCode = 1;
}
