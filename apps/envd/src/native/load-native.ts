import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

export type NativeName = 'koffi' | 'pty';

/**
 * Loads a native add-on: from `native/{name}.node` beside the bundle where that file exists, else from node_modules.
 * Add-ons are opened by path and not through their packages' own loaders, which look for files that a bundle lacks.
 */
export function loadNative(name: NativeName): unknown {
  const bundled = join(import.meta.dirname, 'native', `${name}.node`);
  if (existsSync(bundled)) return open(bundled);
  let failure: unknown;
  for (const path of nativeCandidates(name)) {
    if (!existsSync(path)) continue;
    try {
      return open(path);
    } catch (error) {
      failure ??= error;
    }
  }
  throw new Error(`The native add-on ${name} cannot be loaded on ${process.platform}-${process.arch}.`, {
    cause: failure,
  });
}

/** Where an add-on lies in node_modules: the glibc build first, then musl's where the package has one. */
export function nativeCandidates(name: NativeName): string[] {
  const require = createRequire(import.meta.url);
  switch (name) {
    case 'koffi': {
      // From koffi's own place, because its platform package is its dependency and not ours.
      const platform = createRequire(require.resolve('koffi')).resolve(`@koromix/koffi-linux-${process.arch}`);
      return ['linux', 'musl'].map((libc) => join(dirname(platform), `${libc}_${process.arch}`, 'koffi.node'));
    }
    case 'pty':
      return [
        createRequire(require.resolve('@lydell/node-pty')).resolve(`@lydell/node-pty-linux-${process.arch}/pty.node`),
      ];
  }
}

function open(path: string): unknown {
  const module = { exports: {} };
  process.dlopen(module, path);
  return module.exports;
}
