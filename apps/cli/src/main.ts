import { CommanderError } from 'commander';
import { type Cli, createCli } from './cli.ts';
import { describeFailure, EXIT } from './cli-error.ts';
import { Interrupted, watchInterrupts } from './interrupts.ts';
import { buildProgram } from './program.ts';
import { flush } from './terminal/flush.ts';

async function main(cli: Cli, args: readonly string[]): Promise<number> {
  try {
    await buildProgram(cli).parseAsync(args, { from: 'user' });
    return cli.exitCode;
  } catch (error) {
    // Commander has printed its message; help and version are no failures.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    const cause = cli.signal.aborted ? cli.signal.reason : error;
    if (cause instanceof Interrupted) return cause.exitCode;
    const { text, exitCode } = describeFailure(error, Boolean(process.env.WRENN_DEBUG));
    process.stderr.write(`${text}\n`);
    return exitCode;
  }
}

const cli = createCli(watchInterrupts());
const exitCode = await main(cli, process.argv.slice(2));
await flush([process.stdout, process.stderr], cli.signal);
// Sockets that are kept for a next request, and a terminal that nobody types on, must not hold the process.
process.exit(exitCode);
