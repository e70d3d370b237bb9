import { setTimeout as delay } from 'node:timers/promises';

const STEP_MS = 250;

/**
 * Does something so that how long it takes tells little of what it found: its end, a failure too, comes at a whole
 * step of a quarter of a second.
 */
export async function inUniformTime<T>(work: () => Promise<T>): Promise<T> {
  const startMs = performance.now();
  try {
    return await work();
  } finally {
    await nextStep(startMs);
  }
}

/** The same for something of which only failures must tell nothing. */
export async function failInUniformTime<T>(work: () => Promise<T>): Promise<T> {
  const startMs = performance.now();
  try {
    return await work();
  } catch (error) {
    await nextStep(startMs);
    throw error;
  }
}

async function nextStep(startMs: number): Promise<void> {
  const elapsedMs = performance.now() - startMs;
  await delay(Math.ceil(elapsedMs / STEP_MS) * STEP_MS - elapsedMs);
}
