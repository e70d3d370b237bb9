import { styleText } from 'node:util';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { Command } from 'commander';
import { type Cli, print } from '../cli.ts';
import { readWrennDir } from '../connection.ts';
import { checkCgroups } from '../doctor/cgroups.ts';
import { type Check, type Finding, runCheck } from '../doctor/finding.ts';
import { checkImages } from '../doctor/images.ts';
import { checkDisk, checkMachine } from '../doctor/machine.ts';
import { checkNetwork } from '../doctor/network.ts';
import { checkPackages } from '../doctor/packages.ts';
import { checkPlatform, checkPostgres } from '../doctor/platform.ts';
import { exitCodeFor, formatFindings } from '../doctor/report.ts';
import { checkVirtualisation } from '../doctor/virtualisation.ts';
import { checkWrennDir } from '../doctor/wrenn-dir.ts';
import { startProgress } from '../terminal/progress.ts';

const COLOURS = { ok: 'green', warn: 'yellow', fail: 'red' } as const;

export function addDoctorCommand(program: Command, cli: Cli): void {
  program
    .command('doctor')
    .description('check this machine line by line, and say how to mend what fails')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExits with 1 when something that Wrenn needs fails.\n\nExample:\n  sudo npx wrenn doctor')
    .action(async (options: { json?: boolean }) => {
      const sections = await examine(readWrennDir(), cli.signal);
      const findings = sections.flatMap((section) => section.findings);
      cli.exitCode = exitCodeFor(findings);
      if (options.json) {
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
    });
}

function checksOf(dir: WrennDir): Check[] {
  return [
    { title: 'Machine', run: checkMachine },
    { title: 'Virtualisation', run: checkVirtualisation },
    {
      title: 'Packages',
      run: async (signal) => [...(await checkPackages(signal)), ...(await checkPostgres(dir, signal))],
    },
    { title: 'Guest', run: (signal) => checkImages(dir, signal) },
    { title: 'Network', run: checkNetwork },
    { title: 'Limits', run: checkCgroups },
    { title: 'Storage', run: async () => [...(await checkWrennDir(dir)), ...(await checkDisk(dir))] },
    { title: 'Platform', run: (signal) => checkPlatform(dir, signal) },
  ];
}

async function examine(dir: WrennDir, signal: AbortSignal): Promise<{ title: string; findings: Finding[] }[]> {
  using progress = startProgress('looking');
  const open = new Set<string>();
  return Promise.all(
    checksOf(dir).map(async (check) => {
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
