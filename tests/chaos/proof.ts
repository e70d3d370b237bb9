import type { Answer } from './api.ts';

/** How long a check waits for the program to count on; guests share few cores with each other. */
const PROGRAM_TRIES = 40;

/** What a capsule carries to tell whether it came back as it was. */
export interface Proof {
  /** SHA-256 of a file of random bytes, which is written once. */
  readonly sum: string;
  /** Names the program that counts in memory. */
  readonly program: string;
  /** How far it had counted when it was asked last. */
  readonly count: number;
}

/** Writes the file where there is none, and starts a program with this name that counts; an earlier one ends. */
export function prepareScript(program: string): string {
  return `
echo ${program} > ~/program
cat > ~/counter.sh <<'PROGRAM'
n=0; while read name < ~/program && [ "$name" = "$1" ]; do n=$((n+1)); echo "$1 $n" > ~/count; sleep 1; done
PROGRAM
[ -s ~/proof ] || head -c 200000 /dev/urandom > ~/proof
setsid sh ~/counter.sh ${program} >/dev/null 2>&1 </dev/null &
sync
${checkScript()}`;
}

/** Prints `moving` or `still`, the program's name, its count, and the sum of the file. */
export function checkScript(): string {
  return `
set -- $(sha256sum < ~/proof)
first=; now=; moves=still; tries=0
[ -e ~/count ] && read first < ~/count
while [ $tries -lt ${PROGRAM_TRIES} ]; do
  tries=$((tries + 1))
  [ -e ~/count ] && read now < ~/count
  if [ -n "$now" ] && [ "$now" != "$first" ]; then moves=moving; break; fi
  sleep 0.5
done
echo "$moves \${now:-none 0} $1"`;
}

/** What a capsule says of itself. */
export interface Testimony extends Proof {
  /** Whether the program counts. */
  readonly moving: boolean;
}

/** @returns undefined when the answer is none of the script's, so that nothing is known */
export function readTestimony(answer: Answer): Testimony | undefined {
  if (answer.kind !== 'done') return undefined;
  const match = /^(moving|still) (\S+) (\d+) ([0-9a-f]{64})$/m.exec(String(answer.body?.stdout ?? ''));
  const [, moves, program = '', count, sum = ''] = match ?? [];
  return match ? { moving: moves === 'moving', program, count: Number(count), sum } : undefined;
}
