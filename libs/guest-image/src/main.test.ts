import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

function main(env: Readonly<Record<string, string>>, ...args: string[]) {
  const { status, stderr, stdout } = spawnSync(process.execPath, [join(import.meta.dirname, 'main.ts'), ...args], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  return { status, stderr, stdout };
}

describe('the command line', () => {
  it('explains itself', () => {
    expect(main({}, '--help')).toMatchObject({ status: 0, stdout: expect.stringContaining('rootfs-from-tarball') });
  });

  it.each([
    [[], 'Which command?'],
    [['bake'], 'There is no command bake.'],
    [['build', '--fast'], "Unknown option '--fast'"],
    [['rootfs-from-tarball', 'file.tar'], 'This command takes FILE NAME.'],
  ])('refuses %j', (args, problem) => {
    const answer = main({}, ...args);
    expect(answer.status).toBe(2);
    expect(answer.stderr).toContain(problem);
    expect(answer.stderr).toContain('Usage:');
  });

  it('tells what is wrong and what to do, without a stack', () => {
    const missing = main({ WRENN_DIR: '/nonexistent' }, 'rootfs-from-tarball', '/nonexistent.tar', 'mine');
    expect(missing.status).toBe(1);
    expect(missing.stderr).toContain('there is no file /nonexistent.tar');
    expect(missing.stderr).not.toContain('    at ');
    const wrongSize = main(
      { WRENN_DIR: '/nonexistent' },
      'rootfs-from-tarball',
      '/etc/passwd',
      'mine',
      '--size',
      'big',
    );
    expect(wrongSize.stderr).toContain('whole number of MiB');
    expect(main({ WRENN_DIR: 'here' }, 'build').stderr).toContain('WRENN_DIR: must be an absolute path');
  });
});
