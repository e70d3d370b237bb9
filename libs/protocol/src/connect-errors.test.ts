import { Code, ConnectError, createClient, createRouterTransport } from '@connectrpc/connect';
import { describe, expect, it } from 'vitest';
import { fromConnectError, toConnectError } from './connect-errors.ts';
import { ERROR_CATALOGUE, type ErrorCode, WrennError } from './errors.ts';
import { HostService } from './gen/wrenn/host/v1/host_pb.js';

describe('a WrennError over Connect', () => {
  it('arrives as it was sent', async () => {
    const sent = new WrennError('invalid_shape', { vcpus: 99, memory_mb: 64, problem: 'too many vCPUs.' });
    const transport = createRouterTransport(({ service }) => {
      service(HostService, {
        createVm() {
          throw toConnectError(sent);
        },
      });
    });
    const received = await createClient(HostService, transport)
      .createVm({ id: 'x' })
      .then(
        () => undefined,
        (error: unknown) => error,
      );
    expect(received).toBeInstanceOf(ConnectError);
    const error = fromConnectError(ConnectError.from(received));
    expect(error.toBody()).toEqual(sent.toBody());
    expect(ConnectError.from(received).code).toBe(Code.InvalidArgument);
  });

  it('has a Connect code for every entry', () => {
    for (const code of Object.keys(ERROR_CATALOGUE) as ErrorCode[]) {
      const error = toConnectError(new WrennError(code));
      expect(fromConnectError(error).code, code).toBe(code);
      expect(Code[error.code], code).toBeDefined();
    }
  });
});

describe('a Connect error that carries none', () => {
  it.each([
    [Code.Unavailable, 'host_unavailable'],
    [Code.DeadlineExceeded, 'deadline_exceeded'],
    [Code.InvalidArgument, 'invalid_request'],
    [Code.Unimplemented, 'internal_error'],
  ])('of code %i becomes %s', (code, expected) => {
    const plain = new ConnectError('text', code);
    expect(fromConnectError(plain)).toMatchObject({ code: expected, cause: plain });
  });
});
