import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { getuid } from 'node:process';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import { type AgentRuntime, agentRuntime } from './agent-runtime.ts';
import { withBuildLock } from './build-lock.ts';
import { listKernels } from './catalog.ts';
import { CommandFailedError } from './command.ts';
import { type DebianArchive, debianCodename, hostArchitecture, openDebianArchive } from './debian-archive.ts';
import { temporaryFolder } from './durable-files.ts';
import { type BundleEnvd, bundleEnvdInto, type GuestAgent } from './guest-agent.ts';
import { removeLeftovers } from './image-store.ts';
import { buildKernel, kernelInputs, modulesFolder } from './kernel.ts';
import type { KernelManifest } from './manifest.ts';
import { type OnProgress, reportStep } from './progress.ts';

export interface BuildOptions {
  readonly wrennDir: WrennDir;
  readonly onProgress: OnProgress;
  /** Ends the build; what is complete stays for the next one. Default: never. */
  readonly signal?: AbortSignal;
  /** Resolve and fetch all packages again. */
  readonly refresh?: boolean;
  /** Another maker of the guest agent's bundle. Default: that of apps/envd. */
  readonly bundleEnvd?: BundleEnvd;
}

/** One build that holds the lock: what its steps share. */
export interface BuildSession {
  readonly wrennDir: WrennDir;
  readonly codename: string;
  readonly refresh: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: OnProgress;
  /** Opened at the first call: a build that finds everything in the cache needs no network. */
  archive(): Promise<DebianArchive>;
  /** For half-made things; on the file system of WRENN_DIR, closed to other users. */
  readonly workDir: string;
  readonly bundleEnvd: BundleEnvd;
}

/** Takes the lock, clears what interrupted builds left, and runs `work`. */
export async function withBuildSession<Result>(
  options: BuildOptions,
  work: (session: BuildSession) => Promise<Result>,
): Promise<Result> {
  const { wrennDir } = options;
  let lastStep = 'start';
  const onProgress: OnProgress = (event) => {
    lastStep = event.step;
    options.onProgress(event);
  };
  const signal = options.signal ?? new AbortController().signal;
  if (getuid?.() !== 0) {
    throw new WrennError('image_build_failed', {
      step: 'machine',
      problem: 'root file systems are built by root; use sudo',
    });
  }
  const codename = await debianCodename();
  await mkdir(wrennDir.root, { recursive: true, mode: 0o711 });
  await Promise.all([wrennDir.cache, wrennDir.images, wrennDir.kernels].map((dir) => mkdir(dir, { recursive: true })));
  const onWait = () =>
    onProgress({ step: 'lock', state: 'start', detail: 'another build is running; waiting for it', elapsedMs: 0 });
  const lock = join(wrennDir.kernels, '.build.lock');
  return withBuildLock(lock, { signal, onWait }, async () => {
    await removeLeftovers(wrennDir);
    await using folder = await temporaryFolder(wrennDir.cache);
    let archive: Promise<DebianArchive> | undefined;
    const open = async () => {
      const opened = await reportStep(onProgress, 'package lists', async (note) => {
        const fetched = await openDebianArchive({ cacheDir: wrennDir.cache, signal, note });
        return { archive: fetched, detail: `${fetched.codename} ${fetched.architecture.debian}` };
      });
      return opened.archive;
    };
    try {
      return await work({
        wrennDir,
        codename,
        refresh: options.refresh ?? false,
        signal,
        onProgress,
        archive: () => {
          archive ??= open();
          return archive;
        },
        workDir: folder.path,
        bundleEnvd: options.bundleEnvd ?? bundleOwnEnvd,
      });
    } catch (error) {
      throw signal.aborted ? signal.reason : explainFailure(error, lastStep);
    }
  });
}

/** What went wrong, as an error of the catalogue. */
export function explainFailure(error: unknown, step: string): unknown {
  if (error instanceof WrennError || !(error instanceof Error)) return error;
  const noSpace =
    error instanceof CommandFailedError
      ? error.lastLines.some((line) => line.includes('No space left on device'))
      : 'code' in error && error.code === 'ENOSPC';
  if (noSpace) return new WrennError('host_disk_full', {}, { cause: error });
  return new WrennError('image_build_failed', { step, problem: error.message }, { cause: error });
}

export interface PreparedGuest {
  readonly kernel: KernelManifest;
  readonly agent: GuestAgent;
}

/** The kernel and the guest agent that every image needs, from the cache where it has them. */
export async function prepareGuest(session: BuildSession): Promise<PreparedGuest> {
  const { runtime } = await reportStep(session.onProgress, 'agent runtime', async () => {
    const found = await agentRuntime(session);
    return { ...found, detail: `node ${found.runtime.nodeVersion}` };
  });
  const { kernel } = await reportStep(session.onProgress, 'kernel', async () => {
    const found = await preparedKernel(session, runtime);
    return { ...found, detail: `vmlinux-${found.kernel.version}` };
  });
  const { envd } = await reportStep(session.onProgress, 'envd', async () => {
    const bundle = await bundleEnvdInto(join(session.workDir, 'envd'), session.bundleEnvd);
    return { envd: bundle, detail: bundle.version };
  });
  return { kernel, agent: { runtime, envd, modulesFolder: modulesFolder(session.wrennDir, kernel.version) } };
}

async function preparedKernel(
  session: BuildSession,
  runtime: AgentRuntime,
): Promise<{ kernel: KernelManifest; cached: boolean }> {
  const inputs = await kernelInputs(session.codename, hostArchitecture().debian);
  const known = (await listKernels(session.wrennDir)).find(({ manifest }) => manifest?.inputs === inputs);
  if (known?.manifest && !session.refresh) return { kernel: known.manifest, cached: true };
  const { wrennDir, signal } = session;
  const archive = await session.archive();
  return { kernel: await buildKernel({ wrennDir, archive, busybox: runtime.busybox, signal }), cached: false };
}

/** Loaded at need: bundling takes a compiler that running images does not. */
const bundleOwnEnvd: BundleEnvd = async (outDir) => {
  const { bundleEnvd } = await import('@wrenn/envd/build/bundle');
  return bundleEnvd(outDir);
};
