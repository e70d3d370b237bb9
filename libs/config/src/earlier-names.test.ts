import { expect, it } from 'vitest';
import { withEarlierNames } from './earlier-names.ts';

it('gives variables the names of today, and keeps what already has them', () => {
  const earlier = { AGENT_CP_URL: 'WRENN_CP_URL', AGENT_FILES_ROOTDIR: 'WRENN_DIR' };
  const env = {
    AGENT_CP_URL: 'http://a',
    WRENN_CP_URL: '',
    AGENT_FILES_ROOTDIR: '/old',
    WRENN_DIR: '/new',
    HOME: '/root',
  };
  expect(withEarlierNames(env, earlier)).toEqual({ ...env, WRENN_CP_URL: 'http://a' });
});
