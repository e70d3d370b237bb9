import { z } from 'zod';

/** The environment is not usable. The message lists every variable that is wrong, one a line. */
export class EnvironmentError extends Error {
  override readonly name = 'EnvironmentError';
}

/**
 * Reads the variables that `shape` names. An empty value counts as absent, so that `NAME=` in a .env file means the
 * default.
 *
 * @throws EnvironmentError naming every wrong variable at once.
 */
export function readEnvironment<Shape extends z.ZodRawShape>(
  shape: Shape,
  env: Readonly<Record<string, string | undefined>> = process.env,
): z.output<z.ZodObject<Shape>> {
  const given = Object.fromEntries(Object.keys(shape).flatMap((name) => (env[name] ? [[name, env[name]]] : [])));
  const result = z.object(shape).safeParse(given);
  if (result.success) return result.data;
  const lines = result.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`);
  throw new EnvironmentError(`These environment variables need another value (see .env.example):\n${lines.join('\n')}`);
}

/** Where a server listens. No host means every address. */
export interface ListenAddress {
  host: string | undefined;
  port: number;
}

/** `:8000`, `127.0.0.1:8000` or `[::1]:8000`. Port 0 lets the system choose. */
export const listenAddress = z.string().transform((text, ctx): ListenAddress => {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65_535) {
    ctx.addIssue({ code: 'custom', message: `"${text}" is not an address; write ":8000" or "127.0.0.1:8000"` });
    return z.NEVER;
  }
  return { host: match[1] ?? (match[2] || undefined), port };
});

/** An absolute path. */
export const absolutePath = z.string().regex(/^\//, 'must be an absolute path');
