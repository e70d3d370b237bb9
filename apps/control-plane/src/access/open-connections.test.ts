import { EventEmitter } from 'node:events';
import { WrennError } from '@wrenn/protocol/errors';
import { until } from '@wrenn/testing/until';
import type { FastifyRequest } from 'fastify';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { OpenConnections } from './open-connections.ts';

const OWNER = { sessionId: undefined, userId: undefined, keyId: 'key-1', teamId: 'team-1' };

let connections: OpenConnections;
beforeEach(() => {
  connections = new OpenConnections(pino({ level: 'silent' }));
});
afterEach(() => connections[Symbol.dispose]());

class FakeSocket extends EventEmitter {
  destroyed = false;
  destroy(): void {
    this.destroyed = true;
  }
}

function openRequest(): { readonly socket: FakeSocket; readonly request: Pick<FastifyRequest, 'raw'> } {
  const socket = new FakeSocket();
  return { socket, request: { raw: { socket } } as unknown as Pick<FastifyRequest, 'raw'> };
}

const refuse = async () => {
  throw new WrennError('unauthorized');
};

it('closes a connection whose access ended after it was looked at, and before it was open', async () => {
  const heardBefore = connections.heard;
  connections.hear(JSON.stringify({ keyId: 'key-1' }));
  const { socket, request } = openRequest();
  connections.add(request, OWNER, refuse, heardBefore);
  await until('it is closed', () => socket.destroyed);
});

it('looks once more where something may have been missed while it looked', async () => {
  const { socket, request } = openRequest();
  const first = Promise.withResolvers<void>();
  let looks = 0;
  const recheck = async () => {
    looks += 1;
    if (looks === 1) await first.promise;
    else await refuse();
  };
  connections.add(request, OWNER, recheck, connections.heard);
  connections.hear(undefined);
  connections.hear(undefined);
  first.resolve();
  await until('it is closed', () => socket.destroyed);
  expect(looks).toBe(2);
});
