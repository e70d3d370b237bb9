import { mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { bundleEnvdInto, type GuestAgent, installGuestAgent } from './guest-agent.ts';
import { type Scratch, scratchFolder } from './testing/scratch.ts';

async function madeUpAgent(scratch: Scratch): Promise<GuestAgent> {
  const runtime = join(scratch.path, 'runtime');
  const modulesFolder = join(scratch.path, 'modules');
  await mkdir(join(runtime, 'bin'), { recursive: true });
  await mkdir(join(runtime, 'lib'));
  await writeFile(join(runtime, 'bin', 'busybox'), '');
  await writeFile(join(runtime, 'lib', 'ld-real.so'), '');
  await symlink('ld-real.so', join(runtime, 'lib', 'ld.so'));
  await mkdir(join(modulesFolder, '6.1.0'), { recursive: true });
  const envd = await bundleEnvdInto(join(scratch.path, 'envd'), async (outDir) => {
    await writeFile(join(outDir, 'main.mjs'), '');
    return { version: '1.2.3' };
  });
  return {
    runtime: { folder: runtime, busybox: join(runtime, 'bin/busybox'), nodeVersion: '24' },
    envd,
    modulesFolder,
  };
}

describe('installGuestAgent', () => {
  it('puts everything into /opt/wrenn and replaces what was there', async () => {
    await using scratch = await scratchFolder();
    const root = join(scratch.path, 'root');
    await mkdir(join(root, 'opt/wrenn/stale'), { recursive: true });
    await installGuestAgent(root, await madeUpAgent(scratch));
    expect((await readdir(join(root, 'opt/wrenn'))).sort()).toEqual(['bin', 'envd', 'etc', 'lib', 'modules']);
    expect((await readdir(join(root, 'opt/wrenn/bin'))).sort()).toEqual(['busybox', 'envd', 'modprobe', 'wrenn-init']);
    expect((await stat(join(root, 'opt/wrenn/bin/wrenn-init'))).mode & 0o777).toBe(0o755);
    expect(await readFile(join(root, 'opt/wrenn/etc/envd-version'), 'utf8')).toBe('1.2.3\n');
    expect(await readdir(root)).toEqual(['opt']);
  });

  it('works in an empty root and does not write through a link out of it', async () => {
    await using scratch = await scratchFolder();
    const agent = await madeUpAgent(scratch);
    const root = join(scratch.path, 'root');
    const outside = join(scratch.path, 'outside');
    await mkdir(root);
    await mkdir(outside);
    await installGuestAgent(root, agent);
    expect(await readdir(join(root, 'opt'))).toEqual(['wrenn']);
    const linked = join(scratch.path, 'linked');
    await mkdir(linked);
    await symlink(outside, join(linked, 'opt'));
    await installGuestAgent(linked, agent);
    expect(await readdir(outside)).toEqual([]);
    expect(await readdir(join(linked, 'opt'))).toEqual(['wrenn']);
  });
});
