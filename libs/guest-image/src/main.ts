import { stderr, stdout } from 'node:process';
import { parseArgs } from 'node:util';
import { absolutePath, EnvironmentError, readEnvironment } from '@wrenn/config/environment';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { WrennError } from '@wrenn/protocol/errors';
import { ensureGuestImages } from './build.ts';
import type { BuildOptions } from './build-session.ts';
import { imageFromContainer, imageFromTarball } from './own-image.ts';
import { progressOutput } from './progress-output.ts';
import { updateEnvd } from './update-envd.ts';

const USAGE = `Usage: node libs/guest-image/src/main.ts COMMAND

  build [--refresh]                        kernel, initramfs and the image "minimal"; --refresh fetches packages anew
  rootfs-from-tarball FILE NAME            an image from a root file system (.tar, .tar.gz, .tar.xz, .tar.zst)
  rootfs-from-container CONTAINER NAME     an image from a container or container image of this machine's Docker
  update-envd NAME                         this version's guest agent into an image that is there

  --size MIB         size of the guest's disk (5120)
  --user USER        user that commands run as by default
  --workdir FOLDER   folder that commands start in by default

WRENN_DIR says where images are kept (/var/lib/wrenn).
`;

const OPTIONS = {
  refresh: { type: 'boolean', default: false },
  size: { type: 'string' },
  user: { type: 'string' },
  workdir: { type: 'string' },
  help: { type: 'boolean', short: 'h', default: false },
} as const;

class UsageError extends Error {
  override readonly name = 'UsageError';
}

async function main(args: string[], signal: AbortSignal): Promise<string> {
  const { values, positionals } = parse(args);
  if (values.help) return USAGE;
  const [command, ...names] = positionals;
  const { WRENN_DIR } = readEnvironment({ WRENN_DIR: absolutePath.default('/var/lib/wrenn') });
  using output = progressOutput(stderr);
  const build: BuildOptions = {
    wrennDir: wrennDir(WRENN_DIR),
    onProgress: output.onProgress,
    signal,
    refresh: values.refresh,
  };
  const own = {
    ...build,
    sizeMb: values.size === undefined ? undefined : Number(values.size),
    defaultUser: values.user,
    defaultWorkdir: values.workdir,
  };
  switch (command) {
    case 'build': {
      expectNames(names, []);
      const { kernel, image } = await ensureGuestImages(build);
      return `${kernel.vmlinuxPath}\n${image.rootfsPath}\n`;
    }
    case 'rootfs-from-tarball': {
      const [tarball, name] = expectNames(names, ['FILE', 'NAME']);
      return imageLine(await imageFromTarball({ ...own, tarball, name }));
    }
    case 'rootfs-from-container': {
      const [container, name] = expectNames(names, ['CONTAINER', 'NAME']);
      return imageLine(await imageFromContainer({ ...own, container, name }));
    }
    case 'update-envd': {
      const [name] = expectNames(names, ['NAME']);
      return imageLine(await updateEnvd({ ...build, name }));
    }
    default:
      throw new UsageError(command === undefined ? 'Which command?' : `There is no command ${command}.`);
  }
}

function parse(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** The positional arguments, exactly as many as are expected. */
function expectNames<const Expected extends readonly string[]>(
  names: readonly string[],
  expected: Expected,
): { [Index in keyof Expected]: string } {
  if (names.length !== expected.length) throw new UsageError(`This command takes ${expected.join(' ') || 'no names'}.`);
  return expected.map((_, index) => names[index] ?? '') as { [Index in keyof Expected]: string };
}

function imageLine(image: { name: string; sha256: string; envdVersion: string }): string {
  return `image ${image.name} ${image.sha256} with envd ${image.envdVersion}\n`;
}

const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => interrupted.abort(new Error(`ended by ${name}; nothing half-made was left in place`)));
}
try {
  stdout.write(await main(process.argv.slice(2), interrupted.signal));
} catch (error) {
  if (error instanceof UsageError) {
    stderr.write(`${error.message}\n\n${USAGE}`);
    process.exitCode = 2;
  } else {
    if (error instanceof WrennError) stderr.write(`${error.message}\n${error.remedy}\n`);
    else if (error instanceof EnvironmentError || interrupted.signal.aborted) stderr.write(`${String(error)}\n`);
    else throw error;
    process.exitCode = 1;
  }
}
