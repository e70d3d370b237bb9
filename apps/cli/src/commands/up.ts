import type { Command } from 'commander';
import type { Cli } from '../cli.ts';

export function addUpCommand(program: Command, cli: Cli): void {
  program
    .command('up')
    .description('run the platform on this machine until Ctrl-C (needs root)')
    .addHelpText(
      'after',
      '\nBuilds the guest kernel and image when they are missing, then runs wrenn-agent and wrenn-cp and starts them\n' +
        'again should they fail. Capsules outlive it: the next `wrenn up` takes them over.\n\n' +
        'Example:\n  wrenn up\n  WRENN_CP_LISTEN_ADDR=127.0.0.1:9000 wrenn up',
    )
    .action(async () => {
      // Knows how to build images and more; the other commands start without it.
      const { runUp } = await import('../up/run-up.ts');
      await runUp(cli);
    });
}
