import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { DebianPostgres, findDebianPostgres } from '@wrenn/control-plane/testing/debian-postgres';
import { ensureGuestImages } from '@wrenn/guest-image/build';
import { installS3Server } from '@wrenn/host-agent/objects/testing/install-s3-server';
import { HIDE_PROFILES } from '@wrenn/testing/hide-profiles';
import { COUNTS_FILE } from './count-reporter.ts';
import { addCounts, type Counts, closingLines, NOTHING, summaryLine } from './test-counts.ts';

const COUNT_REPORTER = join(import.meta.dirname, 'count-reporter.ts');

const { values } = parseArgs({ options: { fast: { type: 'boolean', default: false } } });

interface Step {
  readonly name: string;
  readonly run: () => Promise<Counts>;
}

/** Runs a program with its output on this terminal. Resolves with its exit code. */
function run(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, ...env } });
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(signal ? 1 : (code ?? 1)));
  });
}

/** A check that counts as one test. */
function check(name: string, command: string, ...args: string[]): Step {
  return {
    name,
    run: async () => {
      const code = await run(command, args);
      return code === 0 ? { ...NOTHING, passed: 1 } : { ...NOTHING, failures: [`${name}: exit code ${code}`] };
    },
  };
}

/** The projects whose guests are envds on this machine: their login shells are this machine's. */
const LOOPBACK_PROJECTS = ['unit', 'database-url', 'conformance'];

/** The command line that runs a command where login shells read no profile. */
function withoutProfiles(...command: string[]): [string, ...string[]] {
  return ['unshare', '--mount', 'sh', '-ec', `${HIDE_PROFILES}\nexec "$@"`, 'sh', ...command];
}

function vitest(project: string): Step {
  return { name: `${project} tests`, run: () => runVitest(project) };
}

async function runVitest(project: string, env: Record<string, string> = {}): Promise<Counts> {
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-'));
  try {
    const countsFile = join(dir, 'counts.json');
    const args = ['run', `--project=${project}`, '--reporter=default', `--reporter=${COUNT_REPORTER}`];
    const isHidden = LOOPBACK_PROJECTS.includes(project) && process.getuid?.() === 0;
    const [command, ...rest] = isHidden ? withoutProfiles('vitest', ...args) : (['vitest', ...args] as const);
    const code = await run(command, rest, { ...env, [COUNTS_FILE]: countsFile });
    const counts: Counts = JSON.parse(await readFile(countsFile, 'utf8'));
    // A run that fails without a failure must not go unseen.
    const isUnnamed = code !== 0 && counts.failures.length === 0;
    return isUnnamed ? { ...counts, failures: [`${project} tests: exit code ${code}`] } : counts;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** The control plane on another PostgreSQL than its own: the distribution's, or the one that DATABASE_URL names. */
const otherDatabase: Step = {
  name: "tests on a PostgreSQL of one's own",
  run: async () => {
    if (process.env.DATABASE_URL) return await runVitest('database-url');
    if (!findDebianPostgres()) {
      const why = 'tests on the PostgreSQL of Debian: no server is installed below /usr/lib/postgresql';
      return { ...NOTHING, skipped: [why] };
    }
    await using server = await DebianPostgres.start();
    console.log(`  PostgreSQL ${server.version}`);
    return await runVitest('database-url', { DATABASE_URL: server.url });
  },
};

/** Not a test, but what the tests with real VMs need; shown because it can take minutes. */
const images: Step = {
  name: 'guest images',
  run: async () => {
    await ensureGuestImages({
      wrennDir: wrennDir(process.env.WRENN_DIR ?? '/var/lib/wrenn'),
      onProgress: ({ step, state, detail }) => console.log(`  ${step}: ${state}${detail ? ` (${detail})` : ''}`),
    });
    return NOTHING;
  },
};

/** Built once for each user of a machine, in about two minutes. Without Go, what needs it is skipped and says so. */
const s3Server: Step = {
  name: 'S3 server',
  run: async () => {
    console.log(`  ${await installS3Server()}`);
    return NOTHING;
  },
};

const steps: readonly Step[] = [
  check('type check', 'tsc', '-p', '.'),
  check('lint and format', 'biome', 'ci', '.'),
  check('dead code', 'knip'),
  s3Server,
  vitest('unit'),
  ...(values.fast ? [] : [otherDatabase]),
  ...(values.fast ? [] : [images, vitest('conformance'), vitest('e2e'), vitest('chaos')]),
];

let total = NOTHING;
for (const { name, run: runStep } of steps) {
  console.log(`\n== ${name}`);
  const started = performance.now();
  const counts = await runStep();
  console.log(`== ${name}: ${summaryLine(counts)} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  total = addCounts(total, counts);
}

console.log('');
for (const line of closingLines(total)) console.log(line);
process.exitCode = total.failures.length > 0 ? 1 : 0;
