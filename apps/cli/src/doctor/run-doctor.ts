import { styleText } from 'node:util';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { type Cli, print } from '../cli.ts';
import { readWrennDir } from '../connection.ts';
import { startProgress } from '../terminal/progress.ts';
import { checkCgroups } from './cgroups.ts';
import { type Check, type Finding, runCheck } from './finding.ts';
import { checkImages } from './images.ts';
import { checkDisk, checkMachine } from './machine.ts';
import { checkNetwork } from './network.ts';
import { checkPackages } from './packages.ts';
import { checkPlatform, checkPostgres } from './platform.ts';
import { exitCodeFor, formatFindings } from './report.ts';
import { checkVirtualisation } from './virtualisation.ts';
import { checkWrennDir } from './wrenn-dir.ts';

const COLOURS = { ok: 'green', warn: 'yellow', fail: 'red' } as const;

/** Checks the machine and prints what it found. */
export async function runDoctor(cli: Cli, { json, full }: { json: boolean; full: boolean }): Promise<void> {
  const sections = await examine(readWrennDir(), full, cli.signal);
  const findings = sections.flatMap((section) => section.findings);
  cli.exitCode = exitCodeFor(findings);
  if (json) {
    return print(
      JSON.stringify(
        sections.flatMap(({ title, findings }) => findings.map((finding) => ({ section: title, ...finding }))),
        null,
        2,
      ),
    );
  }
  print(formatFindings(sections, (status, mark) => styleText(COLOURS[status], mark, { stream: process.stdout })));
  print(`\n${summary(findings)}`);
}

function checksOf(dir: WrennDir, full: boolean): Check[] {
  return [
    { title: 'Machine', run: checkMachine },
    { title: 'Virtualisation', run: checkVirtualisation },
    {
      title: 'Packages',
      run: async (signal) => [...(await checkPackages(signal)), ...(await checkPostgres(dir, signal))],
    },
    { title: 'Guest', run: (signal) => checkImages(dir, full, signal) },
    { title: 'Network', run: checkNetwork },
    { title: 'Limits', run: checkCgroups },
    { title: 'Storage', run: async () => [...(await checkWrennDir(dir)), ...(await checkDisk(dir))] },
    { title: 'Platform', run: (signal) => checkPlatform(dir, signal) },
  ];
}

async function examine(
  dir: WrennDir,
  full: boolean,
  signal: AbortSignal,
): Promise<{ title: string; findings: Finding[] }[]> {
  using progress = startProgress('looking');
  const open = new Set<string>();
  return await Promise.all(
    checksOf(dir, full).map(async (check) => {
      open.add(check.title);
      const findings = await runCheck(check, signal);
      open.delete(check.title);
      progress.update([...open].join(', ').toLowerCase());
      return { title: check.title, findings };
    }),
  );
}

function summary(findings: readonly Finding[]): string {
  const count = (status: Finding['status']) => findings.filter((finding) => finding.status === status).length;
  const failed = count('fail');
  if (failed > 0) return `${failed} ${failed === 1 ? 'thing needs' : 'things need'} mending before Wrenn works here.`;
  const warned = count('warn');
  return warned > 0 ? 'Wrenn works here; the lines with ! could be better.' : 'Wrenn works here.';
}
