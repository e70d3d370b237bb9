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

/** Keeps a number that is nowhere but in its memory, and says it to whoever asks. */
export const REMEMBER = {
  cmd: 'python3',
  args: [
    '-c',
    `import os, secrets
secret, asked = secrets.token_hex(8), 0
os.mkfifo("/tmp/answer")
os.mkfifo("/tmp/ask")
while True:
    open("/tmp/ask").read()
    asked += 1
    with open("/tmp/answer", "w") as answer:
        answer.write(f"process {os.getpid()} remembers {secret}; question {asked}\\n")`,
  ],
};

/** Asks that program. */
export const ASK = {
  cmd: '/bin/sh',
  args: ['-c', 'until [ -p /tmp/ask ]; do sleep 0.05; done; echo > /tmp/ask; cat /tmp/answer'],
  expected: /^process (?<pid>\d+) remembers (?<secret>[0-9a-f]{16}); question (?<asked>\d+)$/,
};

export const RANDOM = {
  cmd: '/bin/sh',
  args: ['-c', "echo random bytes: $(od -An -N8 -tx1 /dev/urandom | tr -d ' ')"],
};
