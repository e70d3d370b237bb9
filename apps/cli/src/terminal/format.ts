const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
] as const;

/** A time span in its largest whole unit: 45s, 3m, 2h, 9d. A clock that is ahead gives 0s. */
export function formatAge(spanMs: number): string {
  const [unit, unitMs] = UNITS.find(([, ms]) => spanMs >= ms) ?? ['s', 1000];
  return `${Math.floor(Math.max(0, spanMs) / unitMs)}${unit}`;
}

/** A time span to the second, or in its two largest units: 45s, 10m, 1h 30m, 7d 2h. */
export function formatSpan(spanMs: number): string {
  let restMs = Math.round(Math.max(0, spanMs) / 1000) * 1000;
  const first = UNITS.findIndex(([, ms]) => restMs >= ms);
  if (first === -1) return '0s';
  const parts: string[] = [];
  for (const [unit, unitMs] of UNITS.slice(first, first + 2)) {
    const count = Math.floor(restMs / unitMs);
    restMs -= count * unitMs;
    if (count > 0) parts.push(`${count}${unit}`);
  }
  return parts.join(' ');
}

/** An instant of the API in this machine's time zone: 2026-03-01 09:05:00. */
export function formatInstant(timestamp: string): string {
  const date = new Date(timestamp);
  const two = (value: number) => String(value).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** How long a step took: 850 ms, 3.2 s, 2 m 05 s. */
export function formatDuration(spanMs: number): string {
  if (spanMs < 999.5) return `${Math.round(spanMs)} ms`;
  if (spanMs < 59_950) return `${(spanMs / 1000).toFixed(1)} s`;
  const seconds = Math.round(spanMs / 1000);
  return `${Math.floor(seconds / 60)} m ${String(seconds % 60).padStart(2, '0')} s`;
}

const SIZES = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** A size in binary units with three figures: 512 B, 1.50 KiB, 47.7 MiB. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1023.5 && unit < SIZES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${SIZES[unit]}`;
}
