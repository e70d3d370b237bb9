import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { checkQcow2Header } from './qcow2-header.ts';

const dir = mkdtempSync(join(tmpdir(), 'wrenn-qcow2-'));
afterAll(() => rmSync(dir, { recursive: true }));

function make(name: string, ...options: string[]): string {
  const path = join(dir, name);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, '1M']);
  return path;
}

it('accepts what qemu-img makes', async () => {
  await checkQcow2Header(make('plain.qcow2'));
  await checkQcow2Header(make('old.qcow2', '-o', 'compat=0.10'));
});

it('refuses an image that keeps its data elsewhere', async () => {
  const path = make('external.qcow2', '-o', `data_file=${join(dir, 'elsewhere')}`);
  await expect(checkQcow2Header(path)).rejects.toThrow(/another file/);
});

it('refuses other files', async () => {
  const path = join(dir, 'short');
  writeFileSync(path, 'QFI');
  await expect(checkQcow2Header(path)).rejects.toThrow(/no qcow2/);
  await expect(checkQcow2Header(join(dir, 'absent'))).rejects.toThrow(/ENOENT/);
});
