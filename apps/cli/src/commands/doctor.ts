import type { Command } from 'commander';
import type { Cli } from '../cli.ts';

export function addDoctorCommand(program: Command, cli: Cli): void {
  program
    .command('doctor')
    .description('check this machine line by line, and say how to mend what fails')
    .option('--full', 'also compare every byte of the guest images with their checksums')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExits with 1 when something that Wrenn needs fails.\n\nExample:\n  sudo npx wrenn doctor')
    .action(async ({ json = false, full = false }: { json?: boolean; full?: boolean }) => {
      // Knows hypervisors and images; the other commands start without it.
      const { runDoctor } = await import('../doctor/run-doctor.ts');
      await runDoctor(cli, { json, full });
    });
}
