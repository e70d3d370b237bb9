import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { chaosLine, chaosRun, isClean } from './chaos-run.ts';

const { positionals } = parseArgs({ allowPositionals: true });
const seed = Number(positionals[0] ?? process.env.CHAOS_SEED ?? randomInt(2 ** 31));
const kills = Number(process.env.CHAOS_KILLS ?? 110);

const started = Date.now();
const tell = (line: string) => {
  process.stdout.write(`${((Date.now() - started) / 1000).toFixed(0).padStart(5)} s  ${line}\n`);
};
tell(`seed ${seed}, ${kills} kills (again with CHAOS_SEED=${seed})`);
const result = await chaosRun({
  seed,
  kills,
  fills: Math.max(1, Math.round(kills / 20)),
  clients: 4,
  limits: { running: 4, capsules: 10, snapshots: 3 },
  diskMb: 6 * 1024,
  tell,
});
if (result.unexpected.length > 0) tell(`${result.unexpected.length} answers or ends that may not be, see above`);
process.stdout.write(`${chaosLine(result)}\n`);
process.exitCode = isClean(result) ? 0 : 1;
