import { lstatSync } from 'node:fs';
import { chmod, cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { AgentRuntime } from './agent-runtime.ts';
import { GUEST_FOLDER, hashFolder, hashGuestFiles, hashOf } from './inputs.ts';

const PROGRAMS = ['wrenn-init', 'envd', 'modprobe'];
const SETTINGS = ['chrony.conf'];

/** Bundles envd into a folder: `main.mjs` and what it needs beside it. */
export type BundleEnvd = (outDir: string) => Promise<{ version: string }>;

/** All that makes up /opt/wrenn of a guest. */
export interface GuestAgent {
  readonly runtime: AgentRuntime;
  readonly envd: EnvdBundle;
  /** Folder with `{kernel release}/`, as modprobe reads it. */
  readonly modulesFolder: string;
}

export interface EnvdBundle {
  readonly folder: string;
  readonly version: string;
  /** Hash of the bundle's files. */
  readonly hash: string;
}

export async function bundleEnvdInto(folder: string, bundleEnvd: BundleEnvd): Promise<EnvdBundle> {
  await mkdir(folder, { recursive: true });
  const { version } = await bundleEnvd(folder);
  return { folder, version, hash: await hashFolder(folder) };
}

/** Hash of Wrenn's own files in /opt/wrenn, envd apart. */
export async function agentFilesHash(): Promise<string> {
  return hashOf([await hashGuestFiles([...PROGRAMS, ...SETTINGS])]);
}

/**
 * Puts the guest agent into a root file system, which may be of any Linux distribution: one self-contained folder
 * /opt/wrenn, and nothing else. An agent that is there already is replaced.
 */
export async function installGuestAgent(rootDir: string, agent: GuestAgent): Promise<void> {
  await refuseLinkedOpt(rootDir);
  const folder = join(rootDir, 'opt', 'wrenn');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true, mode: 0o755 });
  await writeAgentFolder(folder, agent);
}

/** Fills an empty folder with the agent's files. */
export async function writeAgentFolder(folder: string, agent: GuestAgent): Promise<void> {
  await cp(agent.runtime.folder, folder, { recursive: true, verbatimSymlinks: true });
  await cp(agent.envd.folder, join(folder, 'envd'), { recursive: true });
  await cp(agent.modulesFolder, join(folder, 'modules'), { recursive: true });
  for (const name of PROGRAMS) {
    await cp(join(GUEST_FOLDER, name), join(folder, 'bin', name));
    await chmod(join(folder, 'bin', name), 0o755);
  }
  await mkdir(join(folder, 'etc'));
  for (const name of SETTINGS) await cp(join(GUEST_FOLDER, name), join(folder, 'etc', name));
  await writeFile(join(folder, 'etc', 'envd-version'), `${agent.envd.version}\n`);
}

/** A root file system of unknown origin must not lead our writes out of it through a link. */
async function refuseLinkedOpt(rootDir: string): Promise<void> {
  const opt = join(rootDir, 'opt');
  if (lstatSync(opt, { throwIfNoEntry: false })?.isDirectory() === false) await rm(opt);
}
