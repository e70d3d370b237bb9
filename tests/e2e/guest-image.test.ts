import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { type WrennDir, wrennDir } from '@wrenn/config/wrenn-dir';
import { bundleEnvd } from '@wrenn/envd/build/bundle';
import { ensureGuestImages, type GuestImages } from '@wrenn/guest-image/build';
import { readImage } from '@wrenn/guest-image/catalog';
import { imageFromTarball } from '@wrenn/guest-image/own-image';
import { updateEnvd } from '@wrenn/guest-image/update-envd';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PlainVm } from './support/plain-vm.ts';

const BOOT_MS = 180_000;
const LONG_MS = 600_000;
const run = promisify(execFile);

const machineDir = wrennDir(process.env.WRENN_DIR || '/var/lib/wrenn');
let dir: string;
/** The machine's kernels and cache, with images of its own. */
let ownImages: WrennDir;
let built: GuestImages;

beforeAll(async () => {
  built = await ensureGuestImages({ wrennDir: machineDir, onProgress: () => undefined });
  dir = await mkdtemp(join(tmpdir(), 'wrenn-guest-image-'));
  const images = join(dir, 'images');
  ownImages = { ...machineDir, images, imageStore: join(images, 'store'), image: (name) => join(images, name) };
});

async function sha256Of(path: string): Promise<string | undefined> {
  return (await run('openssl', ['dgst', '-sha256', '-r', path])).stdout.split(' ')[0];
}

async function partials(): Promise<string[]> {
  return (await readdir(machineDir.cache)).filter((name) => name.endsWith('.partial'));
}

afterAll(() => rm(dir, { recursive: true, force: true }));

describe('minimal', { timeout: LONG_MS }, () => {
  it('boots to envd and offers what it promises', async () => {
    await using vm = await PlainVm.boot(built.kernel, built.image.rootfsPath);
    await vm.envdUp(BOOT_MS);
    expect(vm.console).toMatch(/initramfs reached[\s\S]*root file system reached[\s\S]*starting envd/);
    // wrenn-init tells everything that fails.
    expect(vm.console).not.toMatch(/failed|cannot|no driver|was not loaded/);

    const shell = (user: string, script: string) => vm.run(user, '/bin/bash', '-lc', script);
    const python = await shell('user', 'id -un; pwd; python3 -c "print(6*7)"');
    expect(python).toEqual({ output: 'user\n/home/user\n42\n', exitCode: 0 });
    // Capabilities of files came along: without them only root may ping.
    expect((await shell('user', 'ping -c1 -W9 127.0.0.1 >/dev/null && echo pong')).output).toBe('pong\n');
    const node = await shell('user', 'node -p "6*7"; npm --version; sudo -n id -u');
    expect(node.output).toMatch(/^42\n\d+\.\d+\.\d+\n0\n$/);
    const tools =
      'for t in socat chronyd tini sudo wget curl git ip ps pip npx; do command -v $t >/dev/null || echo no $t; done';
    expect(await shell('root', `${tools}; ls /etc/ssl/certs/ca-certificates.crt`)).toEqual({
      output: '/etc/ssl/certs/ca-certificates.crt\n',
      exitCode: 0,
    });
    expect((await shell('root', 'locale -a; hostname; stat -fc %T /sys/fs/cgroup')).output).toMatch(
      /C\.utf8\n[\s\S]*en_US\.utf8\n[\s\S]*capsule\ncgroup2fs\n/,
    );
    // The kernel loads modules when something asks: a container's root, a tunnel, a user-space file system.
    const modules = [
      'mkdir -p /tmp/o/{l,u,w,m} && mount -t overlay -o lowerdir=/tmp/o/l,upperdir=/tmp/o/u,workdir=/tmp/o/w none /tmp/o/m',
      'ip tuntap add tap9 mode tap',
      ': <>/dev/fuse',
      'ip link add name br9 type bridge',
      'grep -c virtio_rng /sys/class/misc/hw_random/rng_current',
    ].join(' && ');
    expect(await shell('root', modules)).toEqual({ output: '1\n', exitCode: 0 });
    // Debian's public archive, and not the mirror that the image was built from.
    const apt = await shell(
      'root',
      'grep -rhv "^#" /etc/apt/sources.list /etc/apt/sources.list.d; ls -A /var/lib/apt/lists',
    );
    expect(apt.output).toMatch(/bookworm|trixie/);
  });

  it('says on the console why a disk cannot be booted, and ends', async () => {
    const empty = join(dir, 'empty.raw');
    await writeFile(empty, '');
    await truncate(empty, 64 * 1024 * 1024);
    await using vm = await PlainVm.boot(built.kernel, empty);
    await expect.poll(() => vm.running, { timeout: BOOT_MS }).toBe(false);
    expect(vm.console).toMatch(/cannot start the guest: \/dev\/vda is no ext4 root file system/);
  });
});

describe('an image of a root file system without libc, shell or folders', { timeout: LONG_MS }, () => {
  it('boots with the guest agent, and again after an update of the agent', async () => {
    const root = join(dir, 'root');
    await mkdir(join(root, 'programs'), { recursive: true });
    await mkdir(join(root, 'lib'));
    const runtime = (await readdir(machineDir.cache)).find((name) => name.startsWith('agent-runtime-')) ?? '';
    await copyFile(join(machineDir.cache, runtime, 'bin', 'busybox'), join(root, 'programs', 'busybox'));
    const tarball = join(dir, 'root.tar.gz');
    await run('tar', ['--create', '--gzip', `--file=${tarball}`, `--directory=${root}`, '.']);

    const options = { wrennDir: ownImages, onProgress: () => undefined, name: 'bare' };
    const manifest = await imageFromTarball({ ...options, tarball, sizeMb: 512 });
    expect(manifest).toMatchObject({ defaultUser: 'root', defaultWorkdir: '/', packages: {} });
    const before = await readImage(ownImages, 'bare');
    {
      await using vm = await PlainVm.boot(built.kernel, before.rootfsPath);
      await vm.envdUp(BOOT_MS);
      const answer = await vm.run('root', '/programs/busybox', 'ls', '/');
      expect(answer.exitCode).toBe(0);
      expect(answer.output.split('\n')).toEqual(expect.arrayContaining(['lib', 'opt', 'programs', 'tmp']));
    }

    const updated = await updateEnvd({
      ...options,
      bundleEnvd: async (outDir) => {
        await bundleEnvd(outDir);
        await writeFile(join(outDir, 'marker'), 'newer\n');
        return { version: '99.0.0' };
      },
    });
    expect(updated).toMatchObject({ envdVersion: '99.0.0', source: manifest.source, sizeBytes: manifest.sizeBytes });
    expect(updated.sha256).not.toBe(manifest.sha256);
    const after = await readImage(ownImages, 'bare');
    await using vm = await PlainVm.boot(built.kernel, after.rootfsPath);
    await vm.envdUp(BOOT_MS);
    expect((await vm.run('root', '/programs/busybox', 'cat', '/opt/wrenn/envd/marker')).output).toBe('newer\n');
    // Capsules that run on the old image keep it.
    expect(await sha256Of(before.rootfsPath)).toBe(manifest.sha256);
  });

  it('is refused when the tarball is none, or holds layers', async () => {
    const file = join(dir, 'noise.tar');
    const options = { wrennDir: ownImages, onProgress: () => undefined, name: 'wrong', tarball: file };
    await writeFile(file, 'this is no tarball');
    await expect(imageFromTarball(options)).rejects.toMatchObject({ code: 'invalid_request' });
    const layers = join(dir, 'layers');
    await mkdir(layers);
    for (const name of ['manifest.json', 'oci-layout']) await writeFile(join(layers, name), '{}');
    await run('tar', ['--create', `--file=${file}`, `--directory=${layers}`, '.']);
    await expect(imageFromTarball(options)).rejects.toThrow(/docker export/);
    await expect(imageFromTarball({ ...options, name: 'minimal' })).rejects.toMatchObject({ code: 'invalid_request' });
    await expect(readImage(ownImages, 'wrong')).rejects.toMatchObject({ code: 'template_not_found' });
  });
});

describe('a build that is killed', { timeout: LONG_MS }, () => {
  it('leaves nothing half-made in place, and the next one completes it', async () => {
    const images = join(dir, 'interrupted');
    const paths = { ...machineDir, images, imageStore: join(images, 'store') };
    const build = (onLine: (line: string) => void) => {
      const source = `
        import { ensureGuestImages } from '@wrenn/guest-image/build';
        const paths = JSON.parse(process.argv[1]);
        const wrennDir = { ...paths, image: (name) => paths.images + '/' + name };
        await ensureGuestImages({ wrennDir, onProgress: (event) => console.log(JSON.stringify(event)) });`;
      const child = spawn(process.execPath, ['--input-type=module', '-e', source, JSON.stringify(paths)], {
        cwd: join(import.meta.dirname, '..', '..'),
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      createInterface({ input: child.stdout }).on('line', onLine);
      return child;
    };
    const own = { ...ownImages, images, imageStore: paths.imageStore, image: (name: string) => join(images, name) };
    const first = build((line) => {
      if (line.includes('writing ext4')) first.kill('SIGKILL');
    });
    expect((await once(first, 'close'))[1]).toBe('SIGKILL');
    await expect(readImage(own, 'minimal')).rejects.toMatchObject({ code: 'template_not_found' });
    const halfMade = await partials();

    const second = build(() => undefined);
    expect((await once(second, 'close'))[0]).toBe(0);
    const image = await readImage(own, 'minimal');
    expect(await sha256Of(image.rootfsPath)).toBe(image.manifest.sha256);
    expect((await partials()).filter((name) => halfMade.includes(name))).toEqual([]);
    expect(await readdir(join(images, 'store'))).toHaveLength(1);
  });
});
