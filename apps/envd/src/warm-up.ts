import { existsSync } from 'node:fs';
import { createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { Process } from '@wrenn/protocol/gen/process/process_pb';
import { loadNative } from './native/load-native.ts';
import { type Account, ownAccount, regularAccounts } from './users/accounts.ts';

const SHELLS = ['/bin/bash', '/bin/sh'];

/**
 * Does once what the first client of every guest does, so that a memory snapshot holds it done: loads the add-ons, runs
 * the whole way from the socket to a process and back in both encodings, and brings the shell into the page cache.
 * Under emulation the first command is otherwise hundreds of milliseconds slower than the second.
 *
 * @param token the access token at that time, should there be one already
 */
export async function warmUp(port: number, token: () => string | undefined): Promise<void> {
  loadNative('pty');
  const shell = SHELLS.find((path) => existsSync(path));
  if (shell === undefined) return;
  const accounts: Account[] = [ownAccount(), ...regularAccounts().slice(0, 1)];
  for (const account of accounts) {
    for (const useBinaryFormat of [true, false]) {
      const transport = createConnectTransport({
        baseUrl: `http://127.0.0.1:${port}`,
        httpVersion: '1.1',
        useBinaryFormat,
      });
      const events = createClient(Process, transport).start(
        { process: { cmd: shell, args: ['-l', '-c', 'echo'] }, stdin: false },
        {
          headers: {
            Authorization: `Basic ${Buffer.from(`${account.name}:`).toString('base64')}`,
            'X-Access-Token': token() ?? '',
          },
          timeoutMs: WARM_UP_TIMEOUT_MS,
        },
      );
      for await (const _event of events) {
        // Their coming is all that matters.
      }
    }
  }
}

/** Under emulation a login shell can take seconds. */
const WARM_UP_TIMEOUT_MS = 60_000;
