import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { WrennDir } from '@wrenn/config/wrenn-dir';
import { z } from 'zod';

const platformStateSchema = z.object({
  /** Process of `wrenn up`. */
  pid: z.int().positive(),
  /** Tells this process from a later one with the same pid. */
  startTicks: z.string(),
  /** Where the API answers. */
  baseUrl: z.url(),
});

/** The `wrenn up` that runs on a WRENN_DIR. */
export type PlatformState = z.output<typeof platformStateSchema>;

/** The file that `wrenn up` locks for as long as it runs, and writes its state to. */
export function platformStateFile(dir: WrennDir): string {
  return join(dir.root, 'up.json');
}

/** The `wrenn up` that runs on this folder now, if any. A file that a killed one left behind counts as none. */
export function readPlatformState(dir: WrennDir): PlatformState | undefined {
  let text: string;
  try {
    text = readFileSync(platformStateFile(dir), 'utf8');
  } catch {
    return undefined;
  }
  const state = parseState(text);
  return state !== undefined && startTicksOf(state.pid) === state.startTicks ? state : undefined;
}

function parseState(text: string): PlatformState | undefined {
  try {
    return platformStateSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Field 22 of /proc/{pid}/stat (proc(5)); undefined when there is no such process. */
export function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}
