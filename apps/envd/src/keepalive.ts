/** E2B's interval where the client names none. */
const DEFAULT_INTERVAL_SECONDS = 90;
const MAX_INTERVAL_SECONDS = 24 * 3600;

/** How long a stream may be silent before it sends a keepalive: header `Keepalive-Ping-Interval`, in seconds. */
export function keepaliveIntervalMs(headers: Headers): number {
  const asked = Number(headers.get('Keepalive-Ping-Interval') ?? Number.NaN);
  const seconds = Number.isFinite(asked) && asked > 0 ? asked : DEFAULT_INTERVAL_SECONDS;
  return Math.min(seconds, MAX_INTERVAL_SECONDS) * 1000;
}
