import { join } from 'node:path';
import { z } from 'zod';
import type { BuildSession } from './build-session.ts';
import { CommandFailedError, runCommand } from './command.ts';
import type { ImageDefaults } from './image-from-root.ts';
import { reportStep } from './progress.ts';

/** `docker inspect --format '{{json .Config}}'`, the part that says how programs are run. */
const containerConfig = z.object({
  Env: z.array(z.string()).nullish(),
  User: z.string().nullish(),
  WorkingDir: z.string().nullish(),
});

/** Writes a container's file system, or that of a container image, to a tarball in the session's work folder. */
export async function exportContainer(
  session: BuildSession,
  nameOrId: string,
): Promise<{ tarball: string; defaults: Partial<ImageDefaults> }> {
  const { signal } = session;
  const docker = async (args: readonly string[], timeoutMs: number) =>
    (await runCommand('docker', args, { signal, timeoutMs, onLine: undefined })).toString().trim();
  return reportStep(session.onProgress, `container ${nameOrId}`, async () => {
    const tarball = join(session.workDir, 'container.tar');
    const config = await docker(['inspect', '--format', '{{json .Config}}', nameOrId], 30_000);
    const isContainer = await docker(['container', 'inspect', nameOrId], 30_000).then(
      () => true,
      (error: unknown) => {
        if (error instanceof CommandFailedError) return false;
        throw error;
      },
    );
    const id = isContainer ? nameOrId : await docker(['create', nameOrId, '/bin/true'], 60_000);
    try {
      await docker(['export', '--output', tarball, id], 1_800_000);
    } finally {
      if (!isContainer) {
        // Also when the build was ended: the container is ours and nobody else would remove it.
        await runCommand('docker', ['rm', id], { signal: new AbortController().signal, timeoutMs: 30_000 });
      }
    }
    return { tarball, detail: 'exported', defaults: defaultsFrom(containerConfig.parse(JSON.parse(config))) };
  });
}

function defaultsFrom(config: z.output<typeof containerConfig>): Partial<ImageDefaults> {
  const user = config.User?.split(':')[0];
  const pairs = (config.Env ?? []).flatMap((entry): [string, string][] => {
    const at = entry.indexOf('=');
    return at > 0 ? [[entry.slice(0, at), entry.slice(at + 1)]] : [];
  });
  return {
    defaultEnvs: Object.fromEntries(pairs),
    ...(user ? { defaultUser: user } : {}),
    ...(config.WorkingDir ? { defaultWorkdir: config.WorkingDir } : {}),
  };
}
