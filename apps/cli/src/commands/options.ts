import { InvalidArgumentError } from 'commander';

/** Parser of an option that is a whole number from `min` on. */
export function wholeNumber(min: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= min) return value;
    throw new InvalidArgumentError(`It must be a whole number${min > 0 ? ` from ${min} on` : ''}.`);
  };
}

const SIZE = /^(\d+(?:\.\d+)?)\s*(m|mi|mib|mb|g|gi|gib|gb)?$/i;

/** A size in MiB from `512`, `512M` or `2G`. */
export function parseSizeMb(text: string): number {
  const match = SIZE.exec(text);
  const sizeMb = Number(match?.[1]) * (match?.[2]?.toLowerCase().startsWith('g') ? 1024 : 1);
  if (match && Number.isInteger(sizeMb) && sizeMb > 0) return sizeMb;
  throw new InvalidArgumentError('Write a number of MiB, or a size such as 512M or 2G.');
}

const TIMES = { s: 1, m: 60, h: 3600, d: 86_400 } as const;

/** A time in seconds from `90`, `90s`, `15m`, `2h` or `1d`. */
export function parseSeconds(text: string): number {
  const match = /^(\d+)([smhd])?$/.exec(text);
  if (match) return Number(match[1]) * TIMES[(match[2] ?? 's') as keyof typeof TIMES];
  throw new InvalidArgumentError('Write a number of seconds, or a time such as 90s, 15m or 2h.');
}

/** The same, or `none`. */
export function parseSecondsOrNone(text: string): number | 'none' {
  return text === 'none' ? 'none' : parseSeconds(text);
}

/** A switch that takes `=true` and `=false`; alone it is on. */
export function parseSwitch(text: string): boolean {
  if (text === 'true') return true;
  if (text === 'false') return false;
  throw new InvalidArgumentError('Write it alone at the end, or with =true or =false.');
}

/** Collects `--env NAME=value` (or `--env NAME`, which takes the value from this environment). */
export function collectEnv(
  text: string,
  previous: Readonly<Record<string, string>> = {},
  env: Readonly<Record<string, string | undefined>> = process.env,
): Record<string, string> {
  const at = text.indexOf('=');
  const name = at === -1 ? text : text.slice(0, at);
  if (name === '') throw new InvalidArgumentError('Write NAME=value.');
  const value = at === -1 ? env[name] : text.slice(at + 1);
  if (value === undefined) throw new InvalidArgumentError(`${name} is not set here; write ${name}=value.`);
  return { ...previous, [name]: value };
}

/** Collects `--label name=value`. */
export function collectLabel(text: string, previous: Readonly<Record<string, string>> = {}): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Write name=value.');
  return { ...previous, [text.slice(0, at)]: text.slice(at + 1) };
}
