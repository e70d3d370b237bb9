import { type CapsuleBody, type CreateCapsuleBody, TIMEOUT_ACTIONS } from '@wrenn/protocol/rest/capsule';
import { type Command, Option } from 'commander';
import type { ApiClient } from '../api/client.ts';
import { type Cli, note } from '../cli.ts';
import { messageOf } from '../cli-error.ts';
import { startProgress } from '../terminal/progress.ts';
import { collectEnv, collectLabel, parseSeconds, parseSizeMb, wholeNumber } from './options.ts';

/** Options of every command that makes a capsule. */
export interface NewCapsuleOptions {
  template?: string;
  vcpus?: number;
  memory?: number;
  disk?: number;
  timeout?: number;
  onTimeout?: (typeof TIMEOUT_ACTIONS)[number];
  deadline?: number;
  autoResume?: true;
  env?: Record<string, string>;
  label?: Record<string, string>;
  hostTag?: string[];
}

export function addNewCapsuleOptions(command: Command): Command {
  return command
    .option('--template <name>', 'root file system to start from (default: minimal)')
    .option('--vcpus <n>', 'virtual CPUs (default: 1)', wholeNumber(1))
    .option('--memory <size>', 'memory in MiB, or as 512M or 2G (default: 512)', parseSizeMb)
    .option('--disk <size>', "disk in MiB, or as 10G (default: the template's)", parseSizeMb)
    .option(
      '--timeout <time>',
      'let it go to sleep after this time without activity, as 90s, 15m or 2h (default: never)',
      parseSeconds,
    )
    .addOption(
      new Option('--on-timeout <action>', 'what happens then, and at the deadline (default: pause)').choices(
        TIMEOUT_ACTIONS,
      ),
    )
    .option('--deadline <time>', 'the same this time from now, whatever it does (default: never)', parseSeconds)
    .option('--auto-resume', 'let it resume by itself when it is used')
    .option('-e, --env <name=value>', 'environment variable of every process in it; repeatable', collectEnvironment)
    .option('--label <name=value>', 'label to find it by; repeatable', collectLabel)
    .option('--host-tag <tag>', 'only hosts with this tag will do; repeatable', collectTag);
}

function collectEnvironment(text: string, previous?: Record<string, string>): Record<string, string> {
  return collectEnv(text, previous);
}

function collectTag(tag: string, previous: readonly string[] = []): string[] {
  return [...previous, tag];
}

export function toCreateBody(options: NewCapsuleOptions): CreateCapsuleBody {
  return {
    ...(options.template === undefined ? {} : { template: options.template }),
    ...(options.vcpus === undefined ? {} : { vcpus: options.vcpus }),
    ...(options.memory === undefined ? {} : { memory_mb: options.memory }),
    ...(options.disk === undefined ? {} : { disk_mb: options.disk }),
    ...(options.timeout === undefined ? {} : { timeout_sec: options.timeout }),
    ...(options.onTimeout === undefined ? {} : { on_timeout: options.onTimeout }),
    ...(options.deadline === undefined ? {} : { deadline_sec: options.deadline }),
    ...(options.autoResume === undefined ? {} : { auto_resume: options.autoResume }),
    ...(options.env === undefined ? {} : { envs: options.env }),
    ...(options.label === undefined ? {} : { metadata: options.label }),
    ...(options.hostTag === undefined ? {} : { host_tags: options.hostTag }),
  };
}

/** Makes a capsule and shows, when it takes longer, that it does. */
export async function createWithProgress(
  api: ApiClient,
  body: CreateCapsuleBody,
  signal: AbortSignal,
): Promise<CapsuleBody> {
  using progress = startProgress('creating a capsule');
  const hint = setTimeout(
    () => progress.update('(the first of its shape boots cold and is then kept as a snapshot)'),
    5000,
  );
  try {
    return await api.createCapsule(body, signal);
  } finally {
    clearTimeout(hint);
  }
}

const CLEAN_UP_TIMEOUT_MS = 120_000;

/**
 * Makes a capsule for the time of `use` and removes it after, however that ends. With `keep` it stays.
 *
 * Where the person interrupts while it is being made, that is waited for: a request that is cut off would be finished
 * by the platform all the same, and nobody would know the id.
 */
export async function withTemporaryCapsule<T>(
  cli: Cli,
  api: ApiClient,
  options: NewCapsuleOptions & { readonly keep?: boolean },
  use: (capsule: CapsuleBody) => Promise<T>,
): Promise<T> {
  const capsule = await createWithProgress(api, toCreateBody(options), new AbortController().signal);
  try {
    cli.signal.throwIfAborted();
    return await use(capsule);
  } finally {
    if (options.keep) note(`kept ${capsule.id}; \`wrenn rm ${capsule.id}\` removes it`);
    else await removeOrTell(api, capsule.id);
  }
}

/** Removes a capsule; a failure is told, and does not hide the outcome of what ran in it. */
async function removeOrTell(api: ApiClient, id: string): Promise<void> {
  using _ = startProgress('removing the capsule');
  try {
    await api.destroyCapsule(id, AbortSignal.timeout(CLEAN_UP_TIMEOUT_MS));
  } catch (error) {
    note(`wrenn: capsule ${id} could not be removed: ${messageOf(error)}\n  → Try \`wrenn rm ${id}\`.`);
  }
}
