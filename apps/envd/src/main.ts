import { parseArgs } from 'node:util';
import { describeError, log } from './log.ts';
import { spareAgent } from './process/oom-score.ts';
import { startEnvd } from './start-envd.ts';
import { ENVD_VERSION } from './version.ts';

const DEFAULT_PORT = 49983;

const HELP = `envd, Wrenn's guest agent

  --port N     port to listen on (${DEFAULT_PORT})
  --host A     address to listen on (0.0.0.0 with --guest, else 127.0.0.1)
  --guest      this machine is a guest: /init sets its clock, host name and entropy
  --leases D   directory for leases (/run/wrenn/leases with --guest, else none)
  --version    print the version
`;

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: String(DEFAULT_PORT) },
    host: { type: 'string' },
    guest: { type: 'boolean', default: false },
    leases: { type: 'string' },
    version: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

if (values.version) process.stdout.write(`${ENVD_VERSION}\n`);
else if (values.help) process.stdout.write(HELP);
else await run();

async function run(): Promise<void> {
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65535) {
    process.stderr.write(`envd: --port must be between 0 and 65535, not ${values.port}\n`);
    process.exit(2);
  }
  // A console that nobody reads any more: without this each failed line would be an exception, which is logged.
  process.stderr.on('error', () => undefined);
  const { guest } = values;
  const host = values.host ?? (guest ? '0.0.0.0' : '127.0.0.1');
  if (guest) {
    protectAgent();
  }
  const envd = await startEnvd({ host, port, guest, leaseDirectory: values.leases });
  log('info', 'listening', { host, port: envd.port, version: ENVD_VERSION, startupMs: Math.round(performance.now()) });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      void envd.close().finally(() => process.exit(0));
    });
  }
}

/** A guest without its agent is lost with all that is in it, so a defect of one request is logged and survived. */
function protectAgent(): void {
  spareAgent();
  process.on('uncaughtException', (error) => log('error', 'uncaught exception', { error: describeError(error) }));
  process.on('unhandledRejection', (error) => log('error', 'unhandled rejection', { error: describeError(error) }));
}
