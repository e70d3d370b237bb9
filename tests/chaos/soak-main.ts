import { SOAK_HEADER, soak } from './soak.ts';

const rounds = Number(process.env.SOAK_ROUNDS ?? 1000);
const tell = (line: string) => void process.stdout.write(`${line}\n`);
tell(SOAK_HEADER);
const started = performance.now();
const { fromPool, problems } = await soak({ rounds, tell });
for (const problem of problems) tell(problem);
const seconds = Math.round((performance.now() - started) / 1000);
tell(`soak: ${rounds} rounds in ${seconds} s, ${fromPool} from the warm pool, ${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;
