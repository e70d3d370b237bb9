import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { buildProgram } from './program.ts';

const LAUNCHER = join(import.meta.dirname, '..', 'bin', 'wrenn');
const KEY = `wrn_${'ab'.repeat(20)}`;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'wrenn-cli-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function wrenn(args: readonly string[], env: Readonly<Record<string, string>> = {}, launcher = LAUNCHER) {
  const { stdout, stderr, status } = spawnSync(launcher, args, {
    encoding: 'utf8',
    timeout: 30_000,
    env: { PATH: process.env.PATH, WRENN_DIR: dir, WRENN_BASE_URL: 'http://127.0.0.1:4', ...env },
  });
  return { stdout, stderr, status };
}

describe('the wrenn command', () => {
  it('finds its Node.js through links, as npm makes them', () => {
    symlinkSync(LAUNCHER, join(dir, 'link'));
    expect(wrenn(['--version'], {}, join(dir, 'link'))).toEqual({ stdout: '0.1.0\n', stderr: '', status: 0 });
  });

  it('says what to do where the dependencies are not installed', () => {
    const copy = join(dir, 'apps', 'cli', 'bin');
    spawnSync('sh', ['-c', 'mkdir -p "$1" && cp "$2" "$1"', 'sh', copy, LAUNCHER]);
    const { stderr, status } = wrenn(['ls'], {}, join(copy, 'wrenn'));
    expect(status).toBe(1);
    expect(stderr).toMatch(/dependencies are not installed.*npm ci/s);
  });

  it.each([
    ['no command', []],
    ['an unknown command', ['lss']],
    ['an unknown option', ['ls', '--nope']],
    ['a missing argument', ['exec']],
    ['a shape that is none', ['create', '--memory', 'lots']],
    ['a copy within this machine', ['cp', 'a', 'b']],
    ['nothing to remove', ['rm']],
    ['nothing to run', ['run', '--', '']],
    ['a wrong variable', ['ls'], { WRENN_BASE_URL: 'nowhere' }],
  ])('exits with 2 for %s, and prints nothing on stdout', (_, args, env: Readonly<Record<string, string>> = {}) => {
    const { stdout, stderr, status } = wrenn(args, { WRENN_API_KEY: KEY, ...env });
    expect({ stdout, status }).toEqual({ stdout: '', status: 2 });
    expect(stderr).not.toBe('');
  });

  it('suggests the command that was meant', () => {
    expect(wrenn(['shel']).stderr).toContain('Did you mean shell?');
  });

  it('exits with 1 and a remedy when there is no platform, without a stack', () => {
    writeFileSync(join(dir, 'api-key'), `${KEY}\n`, { mode: 0o600 });
    const { stdout, stderr, status } = wrenn(['ls']);
    expect({ stdout, status }).toEqual({ stdout: '', status: 1 });
    expect(stderr).toMatch(/^wrenn: The API at .* cannot be reached: nothing listens there\.\n {2}→ Start .*\n$/);
    expect(wrenn(['ls'], { WRENN_DEBUG: '1' }).stderr).toContain('    at ');
  });

  it('refuses a terminal command without a terminal', () => {
    const { stderr, status } = wrenn(['shell', 'cl-x'], { WRENN_API_KEY: KEY });
    expect(status).toBe(1);
    expect(stderr).toContain('A terminal is needed');
  });

  it('needs no platform to say that none runs', () => {
    expect(wrenn(['down'])).toMatchObject({ status: 0, stderr: `No \`wrenn up\` runs on ${dir}.\n` });
  });

  it('does not run on a machine check that it cannot finish: doctor prints JSON with a remedy for each failure', () => {
    const { stdout, status } = wrenn(['doctor', '--json']);
    const findings = JSON.parse(stdout) as { name: string; status: string; remedy?: string }[];
    const failed = findings.filter((finding) => finding.status === 'fail');
    // The folder is empty: there is no kernel.
    expect(failed.map(({ name }) => name)).toContain('kernel');
    expect(status).toBe(1);
    for (const finding of findings) expect(finding.status === 'ok' || Boolean(finding.remedy)).toBe(true);
  });
});

it('every command has a description and an example', () => {
  const cli = { interrupts: undefined, signal: undefined, api: undefined, exitCode: 0 } as never;
  for (const command of buildProgram(cli).commands) {
    let help = '';
    command.configureOutput({ writeOut: (text) => (help += text) });
    command.outputHelp();
    expect(command.description(), command.name()).not.toBe('');
    expect(help, command.name()).toContain(`Example:\n  `);
  }
});
