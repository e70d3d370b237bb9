import { EnvironmentError } from '@wrenn/config/environment';
import { pino } from 'pino';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import { readSettings, type Settings } from './settings.ts';
import { PROGRAM_VERSION } from './version.ts';

const settings = settingsOrExit();
const log = pino({ name: 'wrenn-cp', level: settings.logLevel });
const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // Asked a second time, somebody does not want to wait.
    if (stop.signal.aborted) process.exit(1);
    log.info({ signal }, 'stopping');
    stop.abort();
  });
}

let controlPlane: ControlPlane;
try {
  controlPlane = await startControlPlane({ ...settings, log });
} catch (error) {
  log.fatal({ err: error }, 'wrenn-cp does not start');
  process.exit(1);
}
log.info({ port: controlPlane.port, apiKeyFile: controlPlane.apiKeyFile, version: PROGRAM_VERSION }, 'wrenn-cp serves');
if (!stop.signal.aborted) await new Promise((resolve) => stop.signal.addEventListener('abort', resolve));
await controlPlane[Symbol.asyncDispose]();
log.info('stopped');
// Connections to a database that does not answer any more must not hold the process.
process.exit();

function settingsOrExit(): Settings {
  try {
    return readSettings();
  } catch (error) {
    if (!(error instanceof EnvironmentError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
}
