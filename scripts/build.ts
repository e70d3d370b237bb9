import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PROGRAMS } from './build/bundle.ts';
import { packSingleExecutable } from './build/single-executable.ts';

const BUILDS = join(import.meta.dirname, '..', 'builds');

const names = process.argv.slice(2);
const unknown = names.filter((name) => !Object.hasOwn(PROGRAMS, name));
if (names.length === 0 || unknown.length > 0) {
  console.error(`usage: node scripts/build.ts ${Object.keys(PROGRAMS).join('|')} …`);
  process.exit(2);
}

await mkdir(BUILDS, { recursive: true });
for (const name of names) {
  const started = performance.now();
  process.stdout.write(`${name}: `);
  const work = await mkdtemp(join(BUILDS, `.${name}-`));
  try {
    const program = join(work, 'program');
    await PROGRAMS[name]?.(program);
    const output = join(BUILDS, name);
    await packSingleExecutable(program, output, join(work, 'pack'));
    const megabytes = ((await stat(output)).size / 1e6).toFixed(0);
    console.log(`builds/${name}, ${megabytes} MB, ${((performance.now() - started) / 1000).toFixed(1)} s`);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
