import { expect, it } from 'vitest';
import { addCounts, closingLines } from './test-counts.ts';

it('names what was skipped, then what failed, and adds up', () => {
  const sum = addCounts(
    { passed: 1, failures: ['b.test.ts > works: it does not'], skipped: ['x: needs KVM'] },
    { passed: 2, failures: [], skipped: ['y: needs arm64'] },
  );
  expect(closingLines(sum)).toEqual([
    'skipped: x: needs KVM',
    'skipped: y: needs arm64',
    'failed: b.test.ts > works: it does not',
    '3 passed, 1 failed, 2 skipped',
  ]);
});
