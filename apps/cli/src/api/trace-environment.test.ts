import { expect, it } from 'vitest';
import { traceFromEnvironment } from './trace-environment.ts';

const TRACEPARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

it.each([
  [{}, {}],
  [{ TRACEPARENT: 'nonsense\r\nx: y' }, {}],
  [{ TRACESTATE: 'a=b' }, {}],
  [{ TRACEPARENT }, { traceparent: TRACEPARENT }],
  [
    { TRACEPARENT, TRACESTATE: 'a=b' },
    { traceparent: TRACEPARENT, tracestate: 'a=b' },
  ],
])('%j gives %j', (environment, headers) => {
  expect(traceFromEnvironment(environment)).toEqual(headers);
});
