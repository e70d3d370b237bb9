import { existsSync } from 'node:fs';
import { chmod, copyFile, mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { build } from 'esbuild';
import { type NativeName, nativeCandidates } from '../native/load-native.ts';
import { ENVD_VERSION } from '../version.ts';

const NATIVES: readonly NativeName[] = ['koffi', 'pty'];

/**
 * Bundles envd into a folder: `main.mjs` and the add-ons that it loads, `native/koffi.node` and `native/pty.node`. The
 * folder needs nothing but Node to run. Add-ons are those of this machine's architecture, for glibc.
 */
export async function bundleEnvd(outDir: string): Promise<{ version: string }> {
  await mkdir(join(outDir, 'native'), { recursive: true });
  await build({
    entryPoints: [resolve(import.meta.dirname, '../main.ts')],
    outfile: join(outDir, 'main.mjs'),
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    minify: true,
    // Stack traces in the guest's log stay readable.
    keepNames: true,
    legalComments: 'eof',
    // CommonJS inside the bundle still asks for Node's modules by require.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module';const require = __createRequire(import.meta.url);",
    },
    logLevel: 'warning',
  });
  for (const name of NATIVES) {
    const source = nativeCandidates(name).find((path) => existsSync(path));
    if (source === undefined) throw new Error(`The add-on ${name} is not in node_modules; run npm install.`);
    const target = join(outDir, 'native', `${name}.node`);
    await copyFile(source, target);
    await chmod(target, 0o755);
  }
  return { version: ENVD_VERSION };
}

if (import.meta.main) {
  const [outDir] = process.argv.slice(2);
  if (outDir === undefined) {
    process.stderr.write('usage: node apps/envd/src/build/bundle.ts <out-dir>\n');
    process.exit(2);
  }
  const { version } = await bundleEnvd(outDir);
  process.stdout.write(`envd ${version} in ${outDir}\n`);
}
