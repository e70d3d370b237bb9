import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Marks where Node looks for the blob; fixed by Node's documentation of single executable applications. */
const SENTINEL_FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';

/**
 * Packs a folder that holds `main.mjs`, and whatever it reads beside it, into one executable at `output`. At its first
 * start the executable lays the folder out below /var/cache/wrenn (root) or ~/.cache/wrenn.
 *
 * @param workDir empty folder for what comes about on the way
 */
export async function packSingleExecutable(programDir: string, output: string, workDir: string): Promise<void> {
  const name = basename(output);
  // The embedded entry can load CommonJS from disk only; this file is the step from there to the ES module.
  await writeFile(join(programDir, 'boot.cjs'), "import('./main.mjs');\n");
  const files = await listFiles(programDir);
  const executables: string[] = [];
  const hash = createHash('sha256');
  for (const file of files) {
    const path = join(programDir, file);
    if (((await stat(path)).mode & 0o111) !== 0) executables.push(file);
    hash.update(`${file}\0`).update(await readFile(path));
  }
  const program = { name, contentHash: hash.digest('hex').slice(0, 32), executables };

  await mkdir(workDir, { recursive: true });
  const programFile = join(workDir, 'program.json');
  await writeFile(programFile, JSON.stringify(program));
  const config = join(workDir, 'sea.json');
  const blob = join(workDir, 'program.blob');
  await writeFile(
    config,
    JSON.stringify({
      main: join(import.meta.dirname, 'launcher.cjs'),
      output: blob,
      disableExperimentalSEAWarning: true,
      assets: {
        '.wrenn/program.json': programFile,
        ...Object.fromEntries(files.map((file) => [file, join(programDir, file)])),
      },
    }),
  );
  await run(process.execPath, ['--experimental-sea-config', config]);

  const partial = join(workDir, name);
  await copyFile(process.execPath, partial);
  await chmod(partial, 0o755);
  await run('postject', [partial, 'NODE_SEA_BLOB', blob, '--sentinel-fuse', SENTINEL_FUSE]);
  await rename(partial, output);
}

/** Files below a folder, as sorted relative paths. */
async function listFiles(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(dir, join(entry.parentPath, entry.name)))
    .sort();
}
