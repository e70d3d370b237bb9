import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { ensureGuestImages } from '@wrenn/guest-image/build';
import { installS3Server } from '@wrenn/host-agent/objects/testing/install-s3-server';
import { addCounts, type Counts, countVitest, summaryLine } from './test-counts.ts';

const { values } = parseArgs({ options: { fast: { type: 'boolean', default: false } } });

interface Step {
  readonly name: string;
  readonly run: () => Promise<Counts>;
}

/** Runs a program with its output on this terminal. Resolves with its exit code. */
function run(command: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(signal ? 1 : (code ?? 1)));
  });
}

/** A check that counts as one test. */
function check(name: string, command: string, ...args: string[]): Step {
  return {
    name,
    run: async () => {
      const failed = (await run(command, args)) === 0 ? 0 : 1;
      return { passed: 1 - failed, failed, skipped: [] };
    },
  };
}

function vitest(project: string): Step {
  return {
    name: `${project} tests`,
    run: async () => {
      const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-'));
      try {
        const report = join(dir, 'report.json');
        const code = await run('vitest', [
          'run',
          `--project=${project}`,
          '--reporter=default',
          '--reporter=json',
          `--outputFile.json=${report}`,
        ]);
        return countVitest(JSON.parse(await readFile(report, 'utf8')), code);
      } finally {
        await rm(dir, { recursive: true, force: true });
      }
    },
  };
}

/** Not a test, but what the tests with real VMs need; shown because it can take minutes. */
const images: Step = {
  name: 'guest images',
  run: async () => {
    await ensureGuestImages({
      wrennDir: wrennDir(process.env.WRENN_DIR ?? '/var/lib/wrenn'),
      onProgress: ({ step, state, detail }) => console.log(`  ${step}: ${state}${detail ? ` (${detail})` : ''}`),
    });
    return { passed: 0, failed: 0, skipped: [] };
  },
};

/** Built once for each user of a machine, in about two minutes. Without Go, what needs it is skipped and says so. */
const s3Server: Step = {
  name: 'S3 server',
  run: async () => {
    console.log(`  ${await installS3Server()}`);
    return { passed: 0, failed: 0, skipped: [] };
  },
};

const steps: readonly Step[] = [
  check('type check', 'tsc', '-p', '.'),
  check('lint and format', 'biome', 'ci', '.'),
  check('dead code', 'knip'),
  s3Server,
  vitest('unit'),
  ...(values.fast ? [] : [images, vitest('conformance'), vitest('e2e'), vitest('chaos')]),
];

let total: Counts = { passed: 0, failed: 0, skipped: [] };
for (const { name, run: runStep } of steps) {
  console.log(`\n== ${name}`);
  const started = performance.now();
  const counts = await runStep();
  console.log(`== ${name}: ${summaryLine(counts)} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  total = addCounts(total, counts);
}

console.log('');
for (const skipped of total.skipped) console.log(`skipped: ${skipped}`);
console.log(summaryLine(total));
process.exitCode = total.failed > 0 ? 1 : 0;
