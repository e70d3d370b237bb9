import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type WrennDir, wrennDir } from '@wrenn/config/wrenn-dir';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Journal } from './journal.ts';
import type { VmRecord } from './vm-record.ts';

const RECORD: VmRecord = {
  version: 2,
  vmId: 'vm-1',
  id: 'cl-1',
  phase: 'creating',
  template: 'minimal',
  imageSha256: 'ab',
  shape: { vcpus: 1, memoryMb: 256 },
  requestedDiskMb: 0,
  diskMb: 5120,
  layers: ['0.raw', '1.qcow2'],
  sharedLayers: 2,
  layerSums: {},
  initDigest: 'cd',
  accessToken: 'token',
  defaults: { user: 'user', workdir: '', envs: {} },
  generation: 0,
  memoryDiscarded: false,
  createdAt: '2026-01-01T00:00:00.000Z',
  versions: {},
  trace: [],
};

let dir: WrennDir;
let journal: Journal;
beforeEach(async () => {
  dir = wrennDir(await mkdtemp(join(tmpdir(), 'wrenn-journal-')));
  await mkdir(dir.capsules);
  journal = new Journal(dir);
});
afterEach(() => rm(dir.root, { recursive: true }));

describe('Journal', () => {
  it('gives back what was written last', async () => {
    await journal.begin(RECORD);
    await journal.write({ ...RECORD, slot: 7 });
    expect(await journal.load()).toEqual([{ kind: 'record', record: { ...RECORD, slot: 7 } }]);
    expect(await readdir(dir.capsule('vm-1'))).toEqual(['record.json']);
    expect((await stat(join(dir.capsule('vm-1'), 'record.json'))).mode & 0o777).toBe(0o600);
    await journal.end('vm-1');
    await journal.end('vm-1');
    expect(await journal.load()).toEqual([]);
  });

  it('does not begin a VM over the folder of another', async () => {
    await journal.begin(RECORD);
    await expect(journal.begin({ ...RECORD, slot: 1 })).rejects.toThrow('EEXIST');
  });

  it('tells a folder without a record, also one whose first write was cut off', async () => {
    await mkdir(dir.capsule('vm-2'));
    await writeFile(join(dir.capsule('vm-2'), 'record.json.abc.partial'), '{');
    expect(await journal.load()).toEqual([{ kind: 'empty', vmId: 'vm-2' }]);
  });

  it('does not guess at a record that it cannot understand', async () => {
    await journal.begin(RECORD);
    const path = join(dir.capsule('vm-1'), 'record.json');
    const text = await readFile(path, 'utf8');
    for (const other of [text.replace('"version":2', '"version":1'), text.slice(0, 40), text.replace('vm-1', 'vm-9')]) {
      await writeFile(path, other);
      await expect(journal.load()).rejects.toThrow(path);
    }
  });
});
