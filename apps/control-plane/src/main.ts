import { setFlagsFromString } from 'node:v8';

// What is read from guests lives for a moment. V8 frees it only when its space for young objects is full, which by
// default grows to where hundreds of megabytes of buffers hang on it; kept small it is emptied often, and cheaply.
setFlagsFromString('--semi-space-growth-factor=1');
// After that, because loading the program is what would let it grow.
if (process.argv[2] === 'rotate-secrets') await import('./secrets/rotate-command.ts');
else if (process.argv[2] === 'admin') {
  const { runAdminCommand } = await import('./admin/command.ts');
  process.exitCode = await runAdminCommand(process.argv.slice(3), process);
} else {
  await import('./serve.ts');
}
