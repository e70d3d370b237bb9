import { readdir, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { CommandFailedError, runCommand } from './command.ts';

/** Names that debugfs's command language carries without quoting; all of the guest agent's files have such names. */
const PLAIN_PATH = /^[\w./+@:,=-]+$/;

/**
 * Replaces a folder inside an ext4 image file by a folder of the host. Everything in it belongs to root; modes stay.
 *
 * debugfs of e2fsprogs does it, in a process of its own: an image can come from anywhere, and the host's kernel must
 * not mount a file system that somebody may have prepared for it.
 *
 * @throws WrennError image_build_failed.
 */
export async function replaceFolder(
  imagePath: string,
  target: string,
  sourceDir: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    const commands: string[] = [];
    let parent = '';
    for (const part of target.split('/').slice(1, -1)) {
      parent += `/${part}`;
      if (!(await listFolder(imagePath, parent, signal))) commands.push(`mkdir ${parent}`);
    }
    commands.push(...(await removals(imagePath, target, signal)), ...(await additions(sourceDir, target)));
    await debugfs(['-w', imagePath], commands, signal);
    await runCommand('e2fsck', ['-f', '-n', imagePath], { signal, timeoutMs: 300_000 });
  } catch (error) {
    if (!(error instanceof CommandFailedError)) throw error;
    throw new WrennError('image_build_failed', { step: 'file system', problem: error.message }, { cause: error });
  }
}

interface ImageEntry {
  readonly name: string;
  readonly isFolder: boolean;
}

/** Undefined when there is no such folder. */
async function listFolder(imagePath: string, path: string, signal: AbortSignal): Promise<ImageEntry[] | undefined> {
  const text = await debugfs([imagePath], [`ls -p ${plain(path)}`], signal, /File not found/);
  if (text === undefined) return undefined;
  // "/inode/mode in octal/uid/gid/name/size/"
  return text.split('\n').flatMap((line) => {
    const [, , mode, , , name] = line.split('/');
    if (mode === undefined || name === undefined || name === '.' || name === '..') return [];
    return [{ name, isFolder: mode.startsWith('04') }];
  });
}

async function removals(imagePath: string, path: string, signal: AbortSignal): Promise<string[]> {
  const entries = await listFolder(imagePath, path, signal);
  if (!entries) return [];
  const commands: string[] = [];
  for (const { name, isFolder } of entries) {
    const child = plain(`${path}/${name}`);
    commands.push(...(isFolder ? await removals(imagePath, child, signal) : [`rm ${child}`]));
  }
  return [...commands, `rmdir ${path}`];
}

async function additions(sourceDir: string, target: string): Promise<string[]> {
  const commands = [`mkdir ${plain(target)}`, ...ownership(target, '040755')];
  for (const entry of await readdir(sourceDir, { withFileTypes: true })) {
    const source = plain(join(sourceDir, entry.name));
    const path = plain(`${target}/${entry.name}`);
    if (entry.isDirectory()) commands.push(...(await additions(source, path)));
    else if (entry.isSymbolicLink()) commands.push(`symlink ${path} ${plain(await readlink(source))}`);
    else {
      const mode = ((await stat(source)).mode & 0o7777).toString(8).padStart(4, '0');
      commands.push(`write ${source} ${path}`, ...ownership(path, `010${mode}`));
    }
  }
  return commands;
}

function ownership(path: string, mode: string): string[] {
  return [`set_inode_field ${path} mode ${mode}`, `set_inode_field ${path} uid 0`, `set_inode_field ${path} gid 0`];
}

/**
 * Runs commands of debugfs, which reports failures as text only and ends with 0. Undefined when it says what `absent`
 * describes.
 */
async function debugfs(
  args: readonly string[],
  commands: readonly string[],
  signal: AbortSignal,
  absent?: RegExp,
): Promise<string | undefined> {
  const complaints: string[] = [];
  const output = await runCommand('debugfs', ['-f', '-', ...args], {
    signal,
    timeoutMs: 600_000,
    input: `${commands.join('\n')}\n`,
    onLine: (line) => {
      // Its first line is its version.
      if (!/^debugfs \d/.test(line)) complaints.push(line);
    },
  });
  if (complaints.length === 0) {
    return output
      .toString()
      .split('\n')
      .filter((line) => !line.startsWith('debugfs: '))
      .join('\n');
  }
  if (absent && complaints.some((line) => absent.test(line))) return undefined;
  throw new CommandFailedError('debugfs', 'could not change the image', complaints.slice(0, 5));
}

function plain(path: string): string {
  if (PLAIN_PATH.test(path)) return path;
  throw new WrennError('image_build_failed', { step: 'file system', problem: `the path ${path} cannot be handled` });
}
