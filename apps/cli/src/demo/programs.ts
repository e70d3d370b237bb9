/** What the demo runs in its capsule, and what must come out. */
interface DemoProgram {
  readonly title: string;
  readonly cmd: string;
  readonly args: readonly string[];
  readonly expected: RegExp;
}

export const PROGRAMS: readonly DemoProgram[] = [
  {
    title: 'run a shell command',
    cmd: '/bin/sh',
    args: ['-c', 'echo "$(uname -s) $(uname -r), as $(id -un) in $(pwd)"'],
    expected: /^Linux \d+\.\d+\S*, as \w+ in \//,
  },
  {
    title: 'run a Python program',
    cmd: 'python3',
    args: ['-c', 'import sys; print("Python %d.%d: 6 * 7 = %d" % (*sys.version_info[:2], 6 * 7))'],
    expected: /^Python 3\.\d+: 6 \* 7 = 42$/,
  },
  {
    title: 'run a Node.js program',
    cmd: 'node',
    args: [
      '-e',
      'console.log("Node.js " + process.version + ": 1 + 4 + 9 = " + [1, 2, 3].reduce((s, n) => s + n * n, 0))',
    ],
    expected: /^Node\.js v\d+\S*: 1 \+ 4 \+ 9 = 14$/,
  },
];

/** Prints for two seconds and more. */
export const STREAM = {
  cmd: '/bin/sh',
  args: ['-c', 'for n in 1 2 3 4 5; do echo "line $n of 5"; [ $n = 5 ] || sleep 0.6; done'],
  lines: 5,
  /** Between the first and the last line, were they streamed. */
  atLeastMs: 1800,
};
