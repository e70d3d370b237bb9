import { until } from '@wrenn/testing/until';
import { FileNotFoundError, type FilesystemEvent, FilesystemEventType, FileType, InvalidArgumentError } from 'e2b';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type E2bSandbox, startE2bSandbox } from './e2b-sandbox.ts';

let e2b: E2bSandbox;

beforeAll(async () => {
  e2b = await startE2bSandbox();
});

afterAll(() => e2b[Symbol.asyncDispose]());

const at = (name: string) => `${e2b.directory}/${name}`;

describe('reading and writing', () => {
  it('works in every format', async () => {
    const { files } = e2b.sandbox;
    const text = 'Grüße aus dem Gast ✓\n';
    const bytes = new TextEncoder().encode(text);
    const sources = {
      text,
      buffer: bytes.slice().buffer,
      blob: new Blob([bytes]),
      stream: new Blob([bytes]).stream(),
    };
    for (const [kind, source] of Object.entries(sources)) {
      const path = at(`formats/${kind}.txt`);
      expect(await files.write(path, source)).toMatchObject({ name: `${kind}.txt`, path, type: 'file' });
      expect(await files.read(path)).toBe(text);
      expect(await files.read(path, { format: 'bytes' })).toEqual(bytes);
      expect(await (await files.read(path, { format: 'blob' })).text()).toBe(text);
      expect(await new Response(await files.read(path, { format: 'stream' })).text()).toBe(text);
    }
  });

  it('works with gzip and as octet stream', async () => {
    const { files } = e2b.sandbox;
    const text = 'again and again '.repeat(5000);
    await files.write(at('gzip.txt'), text, { gzip: true });
    expect(await files.read(at('gzip.txt'), { gzip: true })).toBe(text);
    await files.write(at('octets.txt'), text, { useOctetStream: true });
    expect(await files.read(at('octets.txt'))).toBe(text);
  });

  it('writes several files at once', async () => {
    const { files } = e2b.sandbox;
    const entries = ['a', 'b/c', 'ü & 100%41'].map((name) => ({
      path: at(`several/${name}`),
      data: `this is ${name}`,
    }));
    const written = await files.write(entries);
    expect(written.map(({ path }) => path)).toEqual(entries.map(({ path }) => path));
    for (const { path, data } of entries) expect(await files.read(path)).toBe(data);
  });

  it('carries 30 MB', async () => {
    const data = Buffer.alloc(30_000_000, 'wrenn');
    await e2b.sandbox.files.write(at('large.bin'), new Blob([data]));
    const read = await e2b.sandbox.files.read(at('large.bin'), { format: 'bytes' });
    expect(Buffer.from(read).equals(data)).toBe(true);
  });

  it('keeps metadata', async () => {
    const { files } = e2b.sandbox;
    await files.write(at('tagged.txt'), 'x', { metadata: { origin: 'test' } });
    expect((await files.getInfo(at('tagged.txt'))).metadata).toEqual({ origin: 'test' });
  });

  it('refuses what is not there, and directories', async () => {
    const { files } = e2b.sandbox;
    await expect(files.read(at('missing'))).rejects.toBeInstanceOf(FileNotFoundError);
    await expect(files.read('/usr')).rejects.toBeInstanceOf(InvalidArgumentError);
    await expect(files.write('/usr', 'x')).rejects.toBeInstanceOf(InvalidArgumentError);
  });
});

describe('directories', () => {
  it('are made, listed and removed', async () => {
    const { files } = e2b.sandbox;
    expect(await files.makeDir(at('dir/inner'))).toBe(true);
    expect(await files.makeDir(at('dir/inner'))).toBe(false);
    await files.write(at('dir/inner/file'), '12345');
    expect((await files.list(at('dir'))).map(({ name, type }) => [name, type])).toEqual([['inner', FileType.DIR]]);
    const deep = await files.list(at('dir'), { depth: 2 });
    expect(deep.map(({ path, size }) => [path, path.endsWith('file') ? size : 0])).toEqual([
      [at('dir/inner'), 0],
      [at('dir/inner/file'), 5],
    ]);
    await files.remove(at('dir'));
    expect(await files.exists(at('dir'))).toBe(false);
    await expect(files.list(at('dir'))).rejects.toBeInstanceOf(FileNotFoundError);
  });
});

describe('entries', () => {
  it('exist or not, are described and renamed', async () => {
    const { files } = e2b.sandbox;
    await files.write(at('before'), 'content');
    expect(await files.exists(at('before'))).toBe(true);
    expect(await files.rename(at('before'), at('moved/after'))).toMatchObject({ path: at('moved/after'), size: 7 });
    expect(await files.exists(at('before'))).toBe(false);
    await e2b.sandbox.commands.run(`ln -s after link && chmod 640 after`, { cwd: at('moved') });
    expect(await files.getInfo(at('moved/after'))).toMatchObject({
      mode: 0o640,
      permissions: '-rw-r-----',
      type: FileType.FILE,
    });
    expect(await files.getInfo(at('moved/link'))).toMatchObject({
      symlinkTarget: at('moved/after'),
      type: FileType.FILE,
    });
    await expect(files.rename(at('never'), at('x'))).rejects.toBeInstanceOf(FileNotFoundError);
    await expect(files.getInfo(at('never'))).rejects.toBeInstanceOf(FileNotFoundError);
  });
});

describe('watching', () => {
  it('tells what happens, below too, with entries', async () => {
    const { files } = e2b.sandbox;
    await files.makeDir(at('watched/sub'));
    const events: FilesystemEvent[] = [];
    const handle = await files.watchDir(at('watched'), (event) => void events.push(event), {
      recursive: true,
      includeEntry: true,
    });
    const told = (type: FilesystemEventType, name: string) =>
      events.find((event) => event.type === type && event.name === name);
    await files.write(at('watched/sub/file'), 'one');
    await until('the writing is told', () => told(FilesystemEventType.WRITE, 'sub/file') !== undefined);
    expect(told(FilesystemEventType.WRITE, 'sub/file')?.entry).toMatchObject({ path: at('watched/sub/file'), size: 3 });
    await files.rename(at('watched/sub/file'), at('watched/elsewhere'));
    await files.remove(at('watched/elsewhere'));
    await until('the removal is told', () => told(FilesystemEventType.REMOVE, 'elsewhere') !== undefined);
    expect(told(FilesystemEventType.RENAME, 'sub/file')).toBeDefined();
    await handle.stop();
    const count = events.length;
    await files.write(at('watched/after'), 'x');
    expect(events.length).toBe(count);
  });

  it('refuses what is no directory', async () => {
    const { files } = e2b.sandbox;
    await expect(files.watchDir(at('nowhere'), () => {})).rejects.toBeInstanceOf(FileNotFoundError);
    await expect(files.watchDir('/etc/passwd', () => {})).rejects.toBeInstanceOf(InvalidArgumentError);
  });
});
