import { expect, it } from 'vitest';
import { soak } from './soak.ts';

const ROUNDS = 40;

it('creates and destroys from the warm pool without leaving anything or growing', async () => {
  const lines: string[] = [];
  const { fromPool, problems } = await soak({ rounds: ROUNDS, tell: (line) => lines.push(line) });
  expect(problems, lines.join('\n')).toEqual([]);
  expect(fromPool, 'else the pool is not what was tested').toBeGreaterThan(0);
});
