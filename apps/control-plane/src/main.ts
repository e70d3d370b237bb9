import { setFlagsFromString } from 'node:v8';

// What is read from guests lives for a moment. V8 frees it only when its space for young objects is full, which by
// default grows to where hundreds of megabytes of buffers hang on it; kept small it is emptied often, and cheaply.
setFlagsFromString('--semi-space-growth-factor=1');
// After that, because loading the program is what would let it grow.
await import('./serve.ts');
