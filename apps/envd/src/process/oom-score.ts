import { readFileSync, writeFileSync } from 'node:fs';
import { log } from '../log.ts';

const OWN_SCORE = '/proc/self/oom_score_adj';
/** Out-of-memory killing spares the agent: without it nobody could look into the guest. */
const AGENT_SCORE = '-900';
/** Children go before everything of the guest's own; E2B's value. */
const CHILD_SCORE = '100';
/** Number of CAP_SYS_RESOURCE, without which a score can be raised and never lowered again (capabilities(7)). */
const CAP_SYS_RESOURCE = 24n;

let spared = false;

/** Takes this process, which must be a guest's agent, out of the kernel's choice when memory runs out. */
export function spareAgent(): void {
  const capabilities = BigInt(
    `0x${/^CapEff:\s+([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0}`,
  );
  if ((capabilities & (1n << CAP_SYS_RESOURCE)) === 0n) {
    log('warn', 'the agent lacks CAP_SYS_RESOURCE, so it is not spared when memory runs out');
    return;
  }
  writeFileSync(OWN_SCORE, AGENT_SCORE);
  spared = true;
}

/**
 * Runs a synchronous spawn whose child is not spared. The score is set before and not after, so that not even the
 * child's first children inherit the agent's.
 */
export function withChildScore<T>(spawn: () => T): T {
  if (!spared) return spawn();
  writeFileSync(OWN_SCORE, CHILD_SCORE);
  try {
    return spawn();
  } finally {
    writeFileSync(OWN_SCORE, AGENT_SCORE);
  }
}
