import { expect, it } from 'vitest';
import { freePorts } from './free-port.ts';

it('gives ports that all differ', async () => {
  expect(new Set(await freePorts(100)).size).toBe(100);
});
