import { WrennError } from '@wrenn/protocol/errors';
import { z } from 'zod';
import type { Guest } from '../guest/guest.ts';
import { toGuestError, toGuestHttpError } from '../guest/guest-errors.ts';

/** Twice what a guest with as many leases as it may have answers. */
const MAX_ANSWER_BYTES = 64 * 1024;

const timestamp = z.iso.datetime({ offset: true });
const count = z.int().min(0);

const cpuTimeSchema = z.object({ busy_ms: z.number().min(0), uptime_ms: z.number().min(0) });

/** Answer of envd to GET /activity. The guest can say what it likes, so it is held to a form that can be shown. */
const guestActivitySchema = z.object({
  leases: z
    .array(
      z.object({
        name: z.string().regex(/^[\w.@:?+-]{1,64}$/),
        expires_at: timestamp,
        since: timestamp,
      }),
    )
    .max(256),
  cpu: cpuTimeSchema,
  processes: count,
  open_streams: count,
  open_streams_since: timestamp.nullable(),
});

export type GuestActivity = z.output<typeof guestActivitySchema>;
export type CpuTime = z.output<typeof cpuTimeSchema>;

/**
 * Asks a guest what it is at.
 *
 * @throws WrennError `guest_unreachable`, `guest_protocol_error` for an answer that is none, `host_unavailable`; the
 *   signal's reason when that came first
 */
export async function readGuestActivity(guest: Guest, signal: AbortSignal): Promise<GuestActivity> {
  const call = { capsuleId: guest.capsuleId };
  let text: string;
  try {
    const answer = await guest.fetch({ method: 'GET', path: '/activity', signal });
    if (answer.statusCode !== 200) {
      answer.resume();
      throw toGuestHttpError(answer, call);
    }
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of answer) {
      size += chunk.length;
      if (size > MAX_ANSWER_BYTES) throw new WrennError('guest_protocol_error', { id: guest.capsuleId });
      chunks.push(chunk);
    }
    text = Buffer.concat(chunks).toString();
  } catch (error) {
    signal.throwIfAborted();
    throw toGuestError(error, call);
  }
  try {
    return guestActivitySchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new WrennError('guest_protocol_error', { id: guest.capsuleId }, { cause });
  }
}

/** Shorter windows say nothing: a guest counts in ticks of 10 ms, and answering costs it one or two. */
export const MIN_CPU_WINDOW_MS = 250;

/**
 * CPU use between two samples in vCPUs: 1 is one of them all the time. Undefined when they are too close together, or
 * the guest was started anew in between.
 */
export function cpuShare(earlier: CpuTime, later: CpuTime): number | undefined {
  const windowMs = later.uptime_ms - earlier.uptime_ms;
  if (windowMs < MIN_CPU_WINDOW_MS) return undefined;
  return Math.max(0, later.busy_ms - earlier.busy_ms) / windowMs;
}
