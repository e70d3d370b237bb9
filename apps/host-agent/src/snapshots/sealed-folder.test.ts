import { access, appendFile, mkdir, mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type TemplateInputs, templateKey } from '../templates/template-key.ts';
import { checkContent, checkFiles, manifestVersion, readManifest, removeFolder, sealFolder } from './sealed-folder.ts';
import type { SnapshotManifest } from './snapshot-manifest.ts';

const INPUTS: TemplateInputs = {
  format: 1,
  template: 'minimal',
  imageSha256: 'ab',
  envdVersion: '1.0.0',
  kernelVersion: '6.1.0',
  kernelSum: 'cd',
  shape: { vcpus: 1, memoryMb: 256 },
  diskMb: 5120,
  hypervisor: { kind: 'qemu', version: '7.2.22', accelerator: 'tcg', arch: 'x86_64', cpu: 'max' },
};

const MANIFEST: Omit<SnapshotManifest, 'files'> = {
  version: 2,
  kind: 'template',
  id: 'key',
  generation: 1,
  inputs: INPUTS,
  hypervisor: INPUTS.hypervisor,
  template: 'minimal',
  imageSha256: 'ab',
  shape: INPUTS.shape,
  diskMb: 5120,
  requestedDiskMb: 0,
  layers: ['0.raw'],
  sharedLayers: 1,
  guestToken: '',
  defaults: { user: 'user', workdir: '', envs: {} },
  versions: {},
  createdAt: '2026-01-01T00:00:00.000Z',
};

let dir: string;
let final: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-snapshot-'));
  final = join(dir, 'key');
  await mkdir(join(dir, 'key.partial', 'memory'), { recursive: true });
  await writeFile(join(dir, 'key.partial', 'memory', 'memory'), 'all of the memory');
  await writeFile(join(dir, 'key.partial', 'disk.qcow2'), 'disk');
  await sealFolder({ partial: join(dir, 'key.partial'), final, manifest: MANIFEST });
});
afterEach(() => rm(dir, { recursive: true }));

describe('a sealed folder', () => {
  it('is complete under its final name and passes its checks', async () => {
    await expect(access(join(dir, 'key.partial'))).rejects.toThrow('ENOENT');
    const manifest = await readManifest(final);
    expect(manifest.inputs).toEqual(INPUTS);
    expect(Object.keys(manifest.files)).toEqual(['disk.qcow2', 'memory/memory']);
    await checkFiles(final, manifest);
    await checkContent(final, manifest);
  });

  it('shows a file that was written to since', async () => {
    await appendFile(join(final, 'disk.qcow2'), 'x');
    await expect(checkFiles(final, await readManifest(final))).rejects.toThrow('disk.qcow2');
  });

  it('shows content that changed without a trace', async () => {
    const path = join(final, 'memory', 'memory');
    const { atime, mtime } = await stat(path);
    await writeFile(path, 'all of the mem0ry');
    await utimes(path, atime, mtime);
    await expect(checkContent(final, await readManifest(final))).rejects.toThrow('memory/memory');
  });

  it('shows a file that is gone, and a manifest that is none', async () => {
    const manifest = await readManifest(final);
    await rm(join(final, 'memory', 'memory'));
    await expect(checkFiles(final, manifest)).rejects.toThrow('memory/memory is missing');
    await writeFile(join(final, 'manifest.json'), (await readFile(join(final, 'manifest.json'), 'utf8')).slice(0, 50));
    await expect(readManifest(final)).rejects.toThrow();
  });

  it('takes over known sums of files that it shares, and sums up the others', async () => {
    const partial = join(dir, 'next.partial');
    await mkdir(partial);
    await writeFile(join(partial, 'shared'), 'a');
    await writeFile(join(partial, 'fresh'), 'a');
    const shared = { sizeBytes: 1, mtimeMs: 1, sha256: 'known' };
    const { files } = await sealFolder({
      partial,
      final: join(dir, 'next'),
      manifest: MANIFEST,
      known: { shared, absent: shared },
    });
    expect(files.shared).toEqual(shared);
    expect(Object.keys(files)).toEqual(['shared', 'fresh']);
    expect(files.fresh?.sha256).not.toBe('known');
  });

  it('tells a manifest of another version from one that is damaged', async () => {
    await writeFile(join(final, 'manifest.json'), '{"version":3}');
    await expect(readManifest(final)).rejects.toThrow();
    expect(await manifestVersion(final)).toBe(3);
    await writeFile(join(final, 'manifest.json'), '{"vers');
    expect(await manifestVersion(final)).toBeUndefined();
  });

  it('is removed also over the rest of an earlier removal', async () => {
    await mkdir(join(dir, 'key.removing', 'rest'), { recursive: true });
    await removeFolder(final);
    for (const path of [final, `${final}.removing`]) await expect(access(path)).rejects.toThrow('ENOENT');
    await removeFolder(final);
  });
});

describe('templateKey', () => {
  it('differs with everything that a snapshot depends on, but not with the name of the template', () => {
    const key = templateKey(INPUTS);
    expect(templateKey({ ...INPUTS, template: 'other' })).toBe(key);
    const others: Partial<TemplateInputs>[] = [
      { format: 2 },
      { imageSha256: 'x' },
      { envdVersion: '2' },
      { kernelSum: 'x' },
      { shape: { vcpus: 2, memoryMb: 256 } },
      { shape: { vcpus: 1, memoryMb: 257 } },
      { diskMb: 1 },
      { hypervisor: { ...INPUTS.hypervisor, version: '10.0.0' } },
      { hypervisor: { ...INPUTS.hypervisor, cpu: 'host' } },
    ];
    expect(new Set([key, ...others.map((other) => templateKey({ ...INPUTS, ...other }))]).size).toBe(others.length + 1);
  });
});
