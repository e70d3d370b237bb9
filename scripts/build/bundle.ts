import { cp, mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { bundleEnvd } from '@wrenn/envd/build/bundle';
import { build } from 'esbuild';

const REPOSITORY = join(import.meta.dirname, '..', '..');

/** The programs that can be packed, each with what lays its files out in a folder. */
export const PROGRAMS: Readonly<Record<string, (outDir: string) => Promise<void>>> = {
  'wrenn-cp': async (outDir) => {
    await bundleProgram('apps/control-plane/src/main.ts', outDir);
    await copyEmbeddedPostgres(join(outDir, 'embedded-postgres'));
  },
  'wrenn-agent': (outDir) => bundleProgram('apps/host-agent/src/main.ts', outDir),
  envd: async (outDir) => {
    await bundleEnvd(outDir);
  },
};

async function bundleProgram(entry: string, outDir: string): Promise<void> {
  await mkdir(outDir, { recursive: true });
  await build({
    entryPoints: [join(REPOSITORY, entry)],
    outfile: join(outDir, 'main.mjs'),
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'eof',
    // pg loads its native client only where somebody asks for it.
    external: ['pg-native'],
    // CommonJS inside the bundle still asks for Node's modules by require, and for its own place on disk.
    banner: {
      js: [
        "import { createRequire as __createRequire } from 'node:module';",
        'const require = __createRequire(import.meta.url);',
        'const __filename = import.meta.filename;',
        'const __dirname = import.meta.dirname;',
      ].join(''),
    },
    logLevel: 'warning',
  });
}

/** PostgreSQL's programs beside the bundle, where the control plane looks for them first. */
async function copyEmbeddedPostgres(target: string): Promise<void> {
  const require = createRequire(join(REPOSITORY, 'apps/control-plane/package.json'));
  const source = dirname(dirname(require.resolve(`@embedded-postgres/linux-${process.arch}`)));
  await mkdir(target, { recursive: true });
  await cp(join(source, 'package.json'), join(target, 'package.json'));
  await cp(join(source, 'native'), join(target, 'native'), {
    recursive: true,
    filter: (path) => !path.endsWith('.a') && !path.includes('pkgconfig'),
  });
}
