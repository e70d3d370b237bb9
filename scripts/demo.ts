import { describeFailure } from '@wrenn/cli/cli-error';
import { runDemo } from '@wrenn/cli/demo/demo';
import { Interrupted, watchInterrupts } from '@wrenn/cli/interrupts';

const { signal } = watchInterrupts();
try {
  await runDemo(signal);
  console.log('demo: ok');
  process.exit(0);
} catch (error) {
  const cause = signal.aborted ? signal.reason : error;
  if (cause instanceof Interrupted) {
    console.error('demo: interrupted');
    process.exit(cause.exitCode);
  }
  const { text, exitCode } = describeFailure(error, Boolean(process.env.WRENN_DEBUG));
  console.error(text.replace(/^wrenn:/, 'demo: failed:'));
  process.exit(exitCode);
}
