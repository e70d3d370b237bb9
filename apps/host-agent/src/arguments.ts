import { parseArgs } from 'node:util';
import { hostAddressSchema } from '@wrenn/protocol/rest/hosts';

export const HELP = `wrenn-agent: runs the microVMs of one host.

  wrenn-agent                                        the agent of a platform on this machine, or of a host that joined before
  wrenn-agent --register TOKEN [--address HOST:PORT] joins the platform at WRENN_CP_URL

  --register TOKEN      registration token of POST /v1/hosts or \`wrenn host create\`; it works once, for one hour
  --address HOST:PORT   where the control plane reaches this agent; without it the agent connects to the control plane
  --version             prints the version
  --help                prints this

Later starts go by WRENN_DIR/host-token and need no --register. Environment variables are in .env.example.
`;

export type AgentCommand =
  | { readonly kind: 'help' | 'version' }
  | {
      readonly kind: 'run';
      /** A registration token. */
      readonly register: string | undefined;
      /** `host:port` at which the control plane reaches this agent. */
      readonly address: string | undefined;
    };

/** The command line is not usable. The message says what to write instead. */
export class ArgumentError extends Error {
  override readonly name = 'ArgumentError';
}

/** @throws ArgumentError */
export function readArguments(args: readonly string[]): AgentCommand {
  const { values } = parse(args);
  if (values.help) return { kind: 'help' };
  if (values.version) return { kind: 'version' };
  const { register, address } = values;
  if (register?.trim() === '') throw new ArgumentError('--register needs the registration token of a host.');
  if (address !== undefined) requireAddress(address);
  return { kind: 'run', register: register?.trim(), address };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        register: { type: 'string' },
        address: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean' },
      },
    });
  } catch (cause) {
    // Of all its errors the first sentence says what is wrong.
    const problem = cause instanceof Error ? cause.message.split(/\. |\n/)[0] : String(cause);
    throw new ArgumentError(`${problem}. See wrenn-agent --help.`, { cause });
  }
}

function requireAddress(address: string): void {
  const port = Number(address.slice(address.lastIndexOf(':') + 1));
  if (hostAddressSchema.safeParse(address).success && port >= 1 && port <= 65_535) return;
  throw new ArgumentError(
    `--address is "${address}"; write where the control plane reaches this agent with the port, such as 10.0.1.5:50051, [fd00::5]:50051 or node1.example.com:50051.`,
  );
}
