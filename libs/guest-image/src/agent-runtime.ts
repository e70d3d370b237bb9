import { chmod, cp, mkdir, readdir, readFile, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import { runCommand } from './command.ts';
import { type Architecture, type DebianArchive, hostArchitecture } from './debian-archive.ts';
import { flushTree, place, temporaryFolder } from './durable-files.ts';
import { hashOf } from './inputs.ts';

/** Where each of glibc's and the compiler's shared libraries comes from. Programs of envd may load any of them. */
const LIBRARIES: Readonly<Record<string, readonly string[]>> = {
  libc6: [
    'libc.so.6',
    'libdl.so.2',
    'libm.so.6',
    'libnss_dns.so.2',
    'libnss_files.so.2',
    'libpthread.so.0',
    'libresolv.so.2',
    'librt.so.1',
    'libutil.so.1',
  ],
  'libcap-ng0': ['libcap-ng.so.0'],
  'libgcc-s1': ['libgcc_s.so.1'],
  'libstdc++6': ['libstdc++.so.6'],
};

/** Programs of the agent's folder: package, path inside it. */
const PROGRAMS: Readonly<Record<string, { package: string; paths: readonly string[] }>> = {
  busybox: { package: 'busybox-static', paths: ['bin/busybox', 'usr/bin/busybox'] },
  setpriv: { package: 'util-linux', paths: ['usr/bin/setpriv'] },
  tini: { package: 'tini', paths: ['usr/bin/tini-static'] },
};

const FORMAT = 1;

/** The parts of /opt/wrenn that are not Wrenn's own: loader, libraries, Node.js, busybox, tini, setpriv. */
export interface AgentRuntime {
  /** Holds `bin/`, `lib/` and `node/`. Immutable. */
  readonly folder: string;
  readonly busybox: string;
  readonly nodeVersion: string;
}

export interface RuntimeBuild {
  readonly wrennDir: WrennDir;
  readonly codename: string;
  /** Opened only when something must be fetched. */
  readonly archive: () => Promise<DebianArchive>;
  readonly refresh: boolean;
  readonly signal: AbortSignal;
}

/** Finds the runtime in the cache or makes it. Called by the holder of the build lock. */
export async function agentRuntime(build: RuntimeBuild): Promise<{ runtime: AgentRuntime; cached: boolean }> {
  const architecture = hostArchitecture();
  const node = await pinnedNode(architecture);
  const key = hashOf({ FORMAT, codename: build.codename, architecture, node: node.version, LIBRARIES, PROGRAMS });
  const folder = join(build.wrennDir.cache, `agent-runtime-${key.slice(0, 32)}`);
  const runtime = { folder, busybox: join(folder, 'bin', 'busybox'), nodeVersion: node.version };
  const exists = await readdir(folder).then(
    () => true,
    () => false,
  );
  if (exists && !build.refresh) return { runtime, cached: true };

  await using work = await temporaryFolder(build.wrennDir.cache);
  const archive = await build.archive();
  const staged = join(work.path, 'runtime');
  const unpacked = join(work.path, 'packages');
  for (const name of new Set([...Object.keys(LIBRARIES), ...Object.values(PROGRAMS).map((p) => p.package)])) {
    await archive.unpack(await archive.find(name), join(unpacked, name));
  }
  await mkdir(join(staged, 'bin'), { recursive: true });
  await mkdir(join(staged, 'lib'));
  await mkdir(join(staged, 'node', 'bin'), { recursive: true });

  for (const [name, program] of Object.entries(PROGRAMS)) {
    const from = program.paths.map((path) => join(unpacked, program.package, path));
    await copyFirst(from, join(staged, 'bin', name));
  }
  const { loader, multiarch } = architecture;
  for (const [name, files] of Object.entries({ ...LIBRARIES, libc6: [...(LIBRARIES.libc6 ?? []), loader] })) {
    for (const file of files) {
      const from = ['lib', 'usr/lib'].map((folder) => join(unpacked, name, folder, multiarch, file));
      await copyFirst(from, join(staged, 'lib', file));
    }
  }
  await chmod(join(staged, 'lib', loader), 0o755);
  // One name for the loader on every architecture.
  await symlink(loader, join(staged, 'lib', 'ld.so'));
  await cp(node.path, join(staged, 'node', 'bin', 'node'));

  for (const program of ['node/bin/node', 'bin/setpriv']) await checkClosure(staged, program, build.signal);
  await flushTree(staged);
  for (const other of await readdir(build.wrennDir.cache)) {
    if (other.startsWith('agent-runtime-')) await place(join(build.wrennDir.cache, other), join(work.path, other));
  }
  await place(staged, folder);
  return { runtime, cached: false };
}

/** Every library that a program needs must be found in the folder itself, or it would not start elsewhere. */
async function checkClosure(staged: string, program: string, signal: AbortSignal): Promise<void> {
  const lib = join(staged, 'lib');
  const text = await runCommand(join(lib, 'ld.so'), ['--library-path', lib, '--list', join(staged, program)], {
    signal,
    timeoutMs: 30_000,
  });
  const foreign = text
    .toString()
    .split('\n')
    .flatMap((line) => /^\s*(\S+) => (.+?)(?: \(0x[0-9a-f]+\))?$/.exec(line)?.slice(1, 3).join(' from ') ?? [])
    .filter((line) => !line.includes(` from ${lib}/`) && !line.startsWith('/') && !line.includes('ld-linux'));
  if (foreign.length > 0) {
    throw new WrennError('image_build_failed', {
      step: 'guest agent',
      problem: `${program} needs libraries that the agent's folder lacks: ${foreign.join(', ')}`,
    });
  }
}

async function copyFirst(candidates: readonly string[], to: string): Promise<void> {
  for (const from of candidates) {
    const found = await cp(from, to, { dereference: true }).then(
      () => true,
      (error: unknown) => {
        if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
        throw error;
      },
    );
    if (found) return;
  }
  throw new WrennError('image_build_failed', {
    step: 'guest agent',
    problem: `no package holds ${candidates.join(' or ')}`,
  });
}

/** The Node.js that npm's platform package pins; the guest runs the same program as the host. */
async function pinnedNode(architecture: Architecture): Promise<{ path: string; version: string }> {
  const name = `node-linux-${architecture.npm}`;
  try {
    const manifestPath = createRequire(import.meta.url).resolve(`${name}/package.json`);
    const manifest: unknown = JSON.parse(await readFile(manifestPath, 'utf8'));
    if (typeof manifest === 'object' && manifest && 'version' in manifest && typeof manifest.version === 'string') {
      return { path: join(dirname(manifestPath), 'bin', 'node'), version: manifest.version };
    }
  } catch (error) {
    throw new WrennError(
      'image_build_failed',
      { step: 'guest agent', problem: `the npm package ${name} is not installed; run npm install` },
      { cause: error },
    );
  }
  throw new WrennError('image_build_failed', { step: 'guest agent', problem: `${name}/package.json has no version` });
}
