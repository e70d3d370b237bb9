import { chmodSync, existsSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Code } from '@connectrpc/connect';
import { FileType } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createClients, startTestEnvd, type TestEnvd } from '../testing/test-envd.ts';
import { permissionString } from './entry-info.ts';

let envd: TestEnvd;

beforeAll(async () => {
  envd = await startTestEnvd();
});

afterAll(() => envd[Symbol.asyncDispose]());

const at = (name: string) => join(envd.directory, name);

describe('Stat', () => {
  it('tells everything of a file', async () => {
    writeFileSync(at('file.txt'), 'four');
    chmodSync(at('file.txt'), 0o4751);
    const { entry } = await envd.files.stat({ path: at('file.txt') });
    expect(entry).toMatchObject({
      name: 'file.txt',
      type: FileType.FILE,
      path: at('file.txt'),
      size: 4n,
      mode: 0o751,
      permissions: 'urwxr-x--x',
      owner: 'root',
      group: 'root',
      metadata: {},
    });
    expect(entry?.symlinkTarget).toBeUndefined();
    expect(Number(entry?.modifiedTime?.seconds)).toBe(Math.floor(statSync(at('file.txt')).mtimeMs / 1000));
  });

  it('follows links for the type, and tells where they lead', async () => {
    mkdirSync(at('target'));
    symlinkSync('target', at('link'));
    symlinkSync('nowhere', at('broken'));
    expect((await envd.files.stat({ path: at('link') })).entry).toMatchObject({
      type: FileType.DIRECTORY,
      symlinkTarget: at('target'),
      permissions: 'Lrwxrwxrwx',
    });
    expect((await envd.files.stat({ path: at('broken') })).entry).toMatchObject({
      type: FileType.UNSPECIFIED,
      symlinkTarget: at('broken'),
    });
  });

  it('starts relative paths and ~ at home, and an empty path at the default directory', async () => {
    await using own = await startTestEnvd();
    const path = async (given: string) => (await own.files.stat({ path: given })).entry?.path;
    expect(await path('.')).toBe('/root');
    expect(await path('~')).toBe('/root');
    expect(await path('../usr')).toBe('/usr');
    expect(await path('')).toBe('/root');
    await own.init({ defaultWorkdir: '/usr' });
    expect(await path('')).toBe('/usr');
    await expect(path('~other/x')).rejects.toMatchObject({ code: Code.InvalidArgument });
  });

  it('refuses what is not there, over every protocol', async () => {
    for (const protocol of ['connect-json', 'connect-binary', 'grpc-web'] as const) {
      const { files } = createClients(envd.url, protocol);
      await expect(files.stat({ path: at('missing') })).rejects.toMatchObject({
        code: Code.NotFound,
        rawMessage: `There is no file or directory ${at('missing')} in the capsule.`,
      });
    }
  });
});

describe('MakeDir', () => {
  it('makes parents too, and refuses what is there', async () => {
    expect((await envd.files.makeDir({ path: at('x/y/z') })).entry).toMatchObject({
      name: 'z',
      type: FileType.DIRECTORY,
    });
    await expect(envd.files.makeDir({ path: at('x/y') })).rejects.toMatchObject({ code: Code.AlreadyExists });
    writeFileSync(at('plain'), '');
    await expect(envd.files.makeDir({ path: at('plain') })).rejects.toMatchObject({ code: Code.InvalidArgument });
    await expect(envd.files.makeDir({ path: at('plain/below') })).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

describe('Move', () => {
  it('moves, makes the parents of the destination, and replaces files', async () => {
    writeFileSync(at('from'), 'moved');
    writeFileSync(at('over'), 'replaced');
    expect((await envd.files.move({ source: at('from'), destination: at('p/q/to') })).entry).toMatchObject({
      path: at('p/q/to'),
    });
    await envd.files.move({ source: at('p/q/to'), destination: at('over') });
    expect(statSync(at('over')).size).toBe(5);
  });

  it('refuses what cannot be', async () => {
    await expect(envd.files.move({ source: at('none'), destination: at('new-parent/x') })).rejects.toMatchObject({
      code: Code.NotFound,
    });
    expect(existsSync(at('new-parent'))).toBe(false);
    mkdirSync(at('full/inside'), { recursive: true });
    mkdirSync(at('other'));
    await expect(envd.files.move({ source: at('other'), destination: at('full') })).rejects.toMatchObject({
      code: Code.AlreadyExists,
    });
    await expect(envd.files.move({ source: at('full'), destination: at('full/inside/x') })).rejects.toMatchObject({
      code: Code.InvalidArgument,
    });
  });
});

describe('ListDir', () => {
  it('lists by name, to the depth that is asked for, and does not follow links', async () => {
    mkdirSync(at('list/b/deep'), { recursive: true });
    writeFileSync(at('list/a.txt'), '');
    writeFileSync(at('list/b/c.txt'), '');
    symlinkSync('b', at('list/z-link'));
    const names = async (depth?: number, path = at('list')) =>
      (await envd.files.listDir({ path, ...(depth === undefined ? {} : { depth }) })).entries.map(
        (entry) => entry.path,
      );
    expect(await names()).toEqual(['a.txt', 'b', 'z-link'].map((name) => at(`list/${name}`)));
    expect(await names(2)).toEqual(['a.txt', 'b', 'b/c.txt', 'b/deep', 'z-link'].map((name) => at(`list/${name}`)));
    expect(await names(1, at('list/z-link'))).toEqual([at('list/z-link/c.txt'), at('list/z-link/deep')]);
  });

  it('refuses files and what is not there', async () => {
    await expect(envd.files.listDir({ path: '/etc/passwd' })).rejects.toMatchObject({ code: Code.InvalidArgument });
    await expect(envd.files.listDir({ path: at('nothing') })).rejects.toMatchObject({ code: Code.NotFound });
    symlinkSync('loop-b', at('loop-a'));
    symlinkSync('loop-a', at('loop-b'));
    await expect(envd.files.listDir({ path: at('loop-a') })).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

describe('Remove', () => {
  it('removes whole directories, the link and not its target, and what is not there', async () => {
    mkdirSync(at('rm/dir/deep'), { recursive: true });
    writeFileSync(at('rm/kept'), '');
    symlinkSync('kept', at('rm/link'));
    await envd.files.remove({ path: at('rm/dir') });
    await envd.files.remove({ path: at('rm/link') });
    await envd.files.remove({ path: at('rm/never-there') });
    expect([at('rm/dir'), at('rm/link')].some(existsSync)).toBe(false);
    expect(existsSync(at('rm/kept'))).toBe(true);
  });

  it('refuses what the kernel holds', async () => {
    await expect(envd.files.remove({ path: '/proc/self' })).rejects.toMatchObject({ code: Code.PermissionDenied });
  });
});

describe('permissionString', () => {
  it.each([
    [0o100644, '-rw-r--r--'],
    [0o040755, 'drwxr-xr-x'],
    [0o041777, 'dtrwxrwxrwx'],
    [0o120777, 'Lrwxrwxrwx'],
    [0o020666, 'Dcrw-rw-rw-'],
    [0o060660, 'Drw-rw----'],
    [0o010600, 'prw-------'],
    [0o140755, 'Srwxr-xr-x'],
    [0o102755, 'grwxr-xr-x'],
  ])('writes %o as Go does', (mode, expected) => {
    expect(permissionString(mode)).toBe(expected);
  });
});
