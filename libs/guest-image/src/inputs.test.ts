import { mkdir, rename, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { hashFolder } from './inputs.ts';
import { scratchFolder } from './testing/scratch.ts';

it('hashFolder depends on names, contents and link targets, and not on times', async () => {
  await using scratch = await scratchFolder();
  const file = join(scratch.path, 'native', 'a');
  await mkdir(join(scratch.path, 'native'));
  await writeFile(file, 'one');
  const before = await hashFolder(scratch.path);
  await utimes(file, 1, 1);
  expect(await hashFolder(scratch.path)).toBe(before);
  await writeFile(file, 'two');
  const changed = await hashFolder(scratch.path);
  expect(changed).not.toBe(before);
  await rename(file, join(scratch.path, 'native', 'b'));
  const renamed = await hashFolder(scratch.path);
  expect(renamed).not.toBe(changed);
  await symlink('native/b', join(scratch.path, 'link'));
  expect(await hashFolder(scratch.path)).not.toBe(renamed);
});
