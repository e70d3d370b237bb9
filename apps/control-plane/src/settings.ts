import { absolutePath, type ListenAddress, listenAddress, readEnvironment } from '@wrenn/config/environment';
import { z } from 'zod';

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

/** How a control plane is set up. */
export interface Settings {
  /** PostgreSQL of the user's own; undefined: the embedded one. */
  readonly databaseUrl: string | undefined;
  readonly listen: ListenAddress;
  /** URL of the host agent. */
  readonly hostAgentAddress: string;
  readonly wrennDir: string;
  readonly logLevel: (typeof LOG_LEVELS)[number];
}

const shape = {
  // Not z.url(): "postgres://user@/name?host=/socket/folder" is PostgreSQL's own form and no URL of the web's.
  DATABASE_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\//, 'must be a URL such as postgres://user:password@host/name')
    .optional(),
  WRENN_CP_LISTEN_ADDR: listenAddress.default({ host: undefined, port: 8000 }),
  CP_HOST_AGENT_ADDR: z
    .url({ protocol: /^https$/, error: 'must be a URL such as https://localhost:50051' })
    .default('https://localhost:50051'),
  WRENN_DIR: absolutePath.default('/var/lib/wrenn'),
  LOG_LEVEL: z.enum(LOG_LEVELS).default('info'),
};

/** @throws EnvironmentError naming everything that is wrong */
export function readSettings(env?: Readonly<Record<string, string | undefined>>): Settings {
  const values = readEnvironment(shape, env);
  return {
    databaseUrl: values.DATABASE_URL,
    listen: values.WRENN_CP_LISTEN_ADDR,
    hostAgentAddress: values.CP_HOST_AGENT_ADDR,
    wrennDir: values.WRENN_DIR,
    logLevel: values.LOG_LEVEL,
  };
}
