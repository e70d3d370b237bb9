import type { FastifyRequest } from 'fastify';

/**
 * Of a command the log has the program, and how much came with it. Not what: arguments and environments are where
 * people put passwords and tokens, and every member reads the log for as long as it is kept.
 */
export function programOf({
  cmd,
  args,
}: {
  readonly cmd: string;
  readonly args?: readonly string[] | null | undefined;
}): Record<string, unknown> {
  // Some clients send a whole line in the place of the program.
  const [program = ''] = cmd.trim().split(/\s/, 1);
  const length = [cmd, ...(args ?? [])].join(' ').length;
  return { program: program.split('/').at(-1)?.slice(0, 64), args: args?.length ?? 0, command_length: length };
}

export function programDetails({ body }: FastifyRequest): Record<string, unknown> {
  const { background } = body as { background?: boolean };
  return { ...programOf(body as Parameters<typeof programOf>[0]), ...(background ? { background } : {}) };
}

export function pathDetails({ body }: FastifyRequest): Record<string, unknown> {
  const { path } = body as { path: unknown };
  return typeof path === 'string' ? { path } : {};
}

export function selectorDetails({ params }: FastifyRequest): Record<string, unknown> {
  return { process: (params as { selector: string }).selector };
}

/** For routes below a capsule that are about something else. */
export function capsuleDetails({ params }: FastifyRequest): Record<string, unknown> {
  return { capsule_id: (params as { id: string }).id };
}
