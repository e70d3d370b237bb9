import type { IncomingMessage, ServerResponse } from 'node:http';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { toConnectError } from '@wrenn/protocol/connect-errors';
import { WrennError } from '@wrenn/protocol/errors';
import { Filesystem } from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import { Process } from '@wrenn/protocol/gen/process/process_pb';
import { createFilesystemService } from '../filesystem/filesystem-service.ts';
import type { GuestState } from '../guest-state.ts';
import { createProcessService } from '../process/process-service.ts';
import type { ProcessTable } from '../process/process-table.ts';
import { catalogueErrors } from '../rpc-errors.ts';
import { secretsEqual } from './access-token.ts';

export interface RpcOptions {
  readonly state: GuestState;
  readonly guest: boolean;
  readonly spillDirectory: string;
  readonly table: ProcessTable;
}

/** The largest message of a client: stdin in one piece, as JSON. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
const TIMEOUT_HEADER = 'connect-timeout-ms';
/** The longest time that Node's timers can wait; about 24 days. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;

export type RpcHandler = (request: IncomingMessage, response: ServerResponse) => void;

/** Connect (JSON and binary) and gRPC-web for both services. */
export function createRpcHandler(options: RpcOptions): RpcHandler {
  const { state } = options;
  const handler = connectNodeAdapter({
    connect: true,
    grpc: false,
    grpcWeb: true,
    readMaxBytes: MAX_MESSAGE_BYTES,
    // Output leaves the guest over a local network; compressing it would cost an emulated CPU more than it saves.
    acceptCompression: [],
    interceptors: [catalogueErrors],
    requestGate: ({ requestHeader }) => {
      const token = requestHeader.get('X-Access-Token') ?? '';
      if (state.accessToken !== undefined && !secretsEqual(state.accessToken, token)) {
        throw toConnectError(new WrennError('unauthorized'));
      }
    },
    routes: (router) => {
      router.service(Process, createProcessService(options));
      router.service(Filesystem, createFilesystemService(state));
    },
  });
  return (request, response) => {
    // E2B's clients say 0 for "no deadline"; longer than a timer can wait is none either.
    const timeoutMs = Number(request.headers[TIMEOUT_HEADER]);
    if (timeoutMs === 0 || timeoutMs > MAX_TIMEOUT_MS) delete request.headers[TIMEOUT_HEADER];
    handler(request, response);
  };
}
