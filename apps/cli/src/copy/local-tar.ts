import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { extract, type Header, pack } from 'tar-stream';
import { CliError } from '../cli-error.ts';
import { together } from './together.ts';

/** Packs what is in a folder of this machine into `archive`. */
export async function packLocal(folder: string, archive: Writable, signal: AbortSignal): Promise<void> {
  const child = spawn('tar', ['-C', folder, '--numeric-owner', '-c', '-f', '-', '.'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
  });
  await together(
    signal,
    (linked) => pipeline(child.stdout, archive, { signal: linked }),
    () => ending(child, child.stderr, `pack ${folder}`),
  );
}

/**
 * Unpacks an archive that a guest made into a folder of this machine. A guest is not trusted: nothing but plain files,
 * folders and links is unpacked, without owners and without setuid, setgid and sticky bits; GNU tar itself keeps
 * names and links from leading out of `folder`, which must be new and empty.
 */
export async function unpackLocal(folder: string, archive: Readable, signal: AbortSignal): Promise<void> {
  const child = spawn('tar', ['-C', folder, '--no-same-owner', '-x', '-f', '-'], {
    stdio: ['pipe', 'ignore', 'pipe'],
    signal,
  });
  await together(
    signal,
    (linked) => pipeline(archive, onlyHarmless, child.stdin, { signal: linked }),
    () => ending(child, child.stderr, `unpack into ${folder}`),
  );
}

const HARMLESS = new Set<Header['type']>(['file', 'contiguous-file', 'directory', 'symlink', 'link']);

/** A tar stream without entries that could do harm on a host. */
export async function* onlyHarmless(archive: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const input = extract();
  const output = pack();
  const copied = (async () => {
    for await (const entry of input) {
      const { name, type, size, mtime, linkname, mode } = entry.header;
      if (HARMLESS.has(type)) {
        await pipeline(entry, output.entry({ name, type, size, mtime, linkname, mode: mode & 0o777 }));
      } else {
        entry.resume();
      }
    }
    output.finalize();
  })();
  const fed = pipeline(archive, input);
  for (const work of [copied, fed]) work.catch((error: Error) => output.destroy(error));
  for await (const chunk of output as AsyncIterable<Uint8Array>) yield chunk;
  await Promise.all([copied, fed]);
}

async function ending(child: ReturnType<typeof spawn>, stderr: Readable, purpose: string): Promise<void> {
  let text = '';
  stderr.on('data', (data: Buffer) => {
    text = `${text}${data}`.slice(-4096);
  });
  const [code] = await once(child, 'close');
  if (code !== 0) throw new CliError(`tar could not ${purpose}: ${text.trim() || `exit code ${code}`}`);
}
