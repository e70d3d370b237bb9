import { wrennDir } from '@wrenn/config/wrenn-dir';
import { expect, it } from 'vitest';
import { checkPathLength } from './check-wrenn-dir.ts';

it('refuses a folder whose sockets Linux could not name, and says how long it may be', () => {
  const dir = (bytes: number) => wrennDir(`/${'d'.repeat(bytes - 1)}`);
  const most = Number(/at most (\d+) bytes/.exec(messageOf(() => checkPathLength(dir(90))))?.[1]);
  expect(most).toBeGreaterThan(30);
  checkPathLength(dir(most));
  expect(() => checkPathLength(dir(most + 1))).toThrow('1 bytes too long');
});

function messageOf(action: () => void): string {
  try {
    action();
  } catch (error) {
    return String(error);
  }
  return '';
}
