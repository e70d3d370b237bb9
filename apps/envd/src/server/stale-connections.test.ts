import { once } from 'node:events';
import { type AddressInfo, connect } from 'node:net';
import { expect, it } from 'vitest';
import { createGuestState } from '../guest-state.ts';
import { ProcessTable } from '../process/process-table.ts';
import { createEnvdServer } from './envd-server.ts';

it('a guest that is initialized lets go of the connections that it had before', async () => {
  const nothing = () => undefined;
  const server = createEnvdServer({
    state: createGuestState(true),
    system: { addEntropy: nothing, setHostName: nothing, setMachineId: nothing, now: Date.now, setWallClock: nothing },
    rpc: () => Promise.reject(new Error('not needed')),
    ready: async () => undefined,
    onNewToken: nothing,
    activity: { guest: false, leaseDirectory: undefined, table: new ProcessTable() },
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    const stale = connect(port, '127.0.0.1').on('error', nothing);
    await once(stale, 'connect');
    const closed = once(stale, 'close');
    // One answered request makes sure that the server has taken the other connection, too.
    const health = `http://127.0.0.1:${port}/health`;
    expect((await fetch(health)).status).toBe(204);
    expect((await fetch(`http://127.0.0.1:${port}/init`, { method: 'POST', body: '{}' })).status).toBe(204);
    await closed;
    expect((await fetch(health)).status).toBe(204);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
