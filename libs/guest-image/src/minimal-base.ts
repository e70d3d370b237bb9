import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import { runCommand } from './command.ts';
import { type DebianArchive, hostArchitecture } from './debian-archive.ts';
import { place, temporaryFolder } from './durable-files.ts';
import { GUEST_FOLDER, hashGuestFiles, hashOf } from './inputs.ts';

/** What the `minimal` template offers beyond Debian's required packages. */
const PACKAGES = [
  'bash',
  'ca-certificates',
  'chrony',
  'curl',
  'git',
  'iproute2',
  'iputils-ping',
  'kmod',
  'less',
  'locales',
  'netbase',
  'procps',
  'python3',
  'python3-pip',
  'python3-venv',
  'socat',
  'sudo',
  'tini',
  'unzip',
  'wget',
  'xz-utils',
];

/** Manuals and translations stay out, also of what guests install later. Licences stay in. */
const LEFT_OUT = ['/usr/share/doc/*', '/usr/share/info/*', '/usr/share/lintian/*', '/usr/share/man/*'];
const KEPT = ['/usr/share/doc/*/copyright', '/usr/share/doc/apt/examples/*'];

const FORMAT = 2;

interface BaseBuild {
  readonly wrennDir: WrennDir;
  readonly codename: string;
  readonly archive: () => Promise<DebianArchive>;
  readonly refresh: boolean;
  readonly note: (detail: string) => void;
  readonly signal: AbortSignal;
}

/** Hash of what decides about the base. */
export async function minimalBaseInputs(codename: string): Promise<string> {
  const script = await hashGuestFiles(['customize-minimal']);
  return hashOf({ FORMAT, codename, arch: hostArchitecture().debian, PACKAGES, LEFT_OUT, KEPT, script });
}

/**
 * The root file system of `minimal` without Wrenn's own files, as a tarball in the cache: Debian's packages, the user,
 * the settings. Called by the holder of the build lock.
 */
export async function minimalBase(build: BaseBuild): Promise<{ tarball: string; cached: boolean }> {
  const { wrennDir, signal } = build;
  const name = `minimal-base-${(await minimalBaseInputs(build.codename)).slice(0, 32)}.tar`;
  const tarball = join(wrennDir.cache, name);
  const present = await readdir(wrennDir.cache);
  if (present.includes(name) && !build.refresh) return { tarball, cached: true };

  const archive = await build.archive();
  await using work = await temporaryFolder(wrennDir.cache);
  const partial = join(work.path, 'base.tar');
  const settings = join(work.path, 'apt.conf');
  // mmdebstrap works as root in its own mount namespace; its folder must be passable for apt's own user.
  const scratch = join(work.path, 'tmp');
  await mkdir(scratch, { mode: 0o755 });
  await writeFile(settings, await archive.transportOptions());
  const sources = await archive.sources();
  if (sources.length === 0) {
    throw new WrennError('package_download_failed', {
      problem: `apt's sources on this machine have no Debian archive for ${archive.codename}`,
    });
  }
  const args = [
    ...['--mode=root', '--variant=minbase', '--format=tar', `--architectures=${archive.architecture.debian}`],
    `--include=${PACKAGES.join(',')}`,
    `--aptopt=${settings}`,
    // A capsule's disk is a copy; waiting for it after every unpacked file makes apt several times slower.
    '--dpkgopt=force-unsafe-io',
    ...LEFT_OUT.map((pattern) => `--dpkgopt=path-exclude=${pattern}`),
    ...KEPT.map((pattern) => `--dpkgopt=path-include=${pattern}`),
    `--customize-hook=${join(GUEST_FOLDER, 'customize-minimal')}`,
    ...[archive.codename, partial, '-'],
  ];
  await runCommand('mmdebstrap', args, {
    signal,
    timeoutMs: 1_800_000,
    env: { TMPDIR: scratch },
    input: `${sources.join('\n')}\n`,
    onLine: (line) => {
      if (line.startsWith('I: ')) build.note(line.slice(3));
    },
  });
  await place(partial, tarball);
  for (const other of present) {
    if (other.startsWith('minimal-base-') && other !== name) await rm(join(wrennDir.cache, other));
  }
  return { tarball, cached: false };
}
