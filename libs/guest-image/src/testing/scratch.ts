import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type WrennDir, wrennDir } from '@wrenn/config/wrenn-dir';

export interface Scratch extends AsyncDisposable {
  readonly path: string;
  readonly wrennDir: WrennDir;
}

/** An empty folder and a WRENN_DIR layout in it, for one test. */
export async function scratchFolder(): Promise<Scratch> {
  const path = await mkdtemp(join(tmpdir(), 'wrenn-image-'));
  return {
    path,
    wrennDir: wrennDir(path),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}
