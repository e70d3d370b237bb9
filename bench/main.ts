import { readFileSync, writeFileSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { measureFleet } from './fleet.ts';
import { floorProgram } from './floor-sleep.ts';
import { measureIdentity } from './identity.ts';
import { provenance } from './machine.ts';
import type { Measurement } from './measurement.ts';
import { measureMicroVms } from './micro-vms.ts';
import { isWhole, mergeRows, needsMicroVms, runOptions, type Section, sampleCount } from './run-options.ts';

const RESULTS = join(import.meta.dirname, 'results', 'latest.json');
/** What is measured so far: what a run that fails late leaves. */
const PARTIAL = `${RESULTS}.partial`;

const options = runOptions(process.argv.slice(2));
const count = (n: number) => sampleCount(options, n);
const wants = (section: Section) => options.sections.has(section);

const program = await floorProgram();
const origin = await provenance(program.identity);
const before: readonly Measurement[] = isWhole(options) ? [] : JSON.parse(readFileSync(RESULTS, 'utf8'));
const rows: Measurement[] = [];
const columns = ['name', 'unit', 'n', 'p50', 'p95', 'p99', 'floorP50', 'ratio', 'aim', 'met'] as const;
function report(...measured: Measurement[]): void {
  for (const row of measured) {
    rows.push(row);
    const floor = row.floorP50 === null ? '' : `  (floor ${row.floorP50}, ratio ${row.ratio})`;
    const aim = row.aim === null ? '' : `  ${row.aim}: ${row.met ? 'met' : 'missed'}`;
    console.log(`  ${row.name}: p50 ${row.p50} ${row.unit}, p95 ${row.p95}${floor}${aim}`);
  }
  if (!options.quick) writeFileSync(PARTIAL, `${JSON.stringify(results(), undefined, 2)}\n`);
}

function results(): Measurement[] {
  const measured = rows.map((row) => ({ ...row, ...origin }));
  return isWhole(options) ? measured : mergeRows(before, measured);
}

if (needsMicroVms(options)) await measureMicroVms(options, program, report);
if (wants('identity')) for await (const row of measureIdentity(count)) report(row);
let growth: object | undefined;
if (wants('fleet')) {
  const keep = (table: object) => {
    growth = table;
  };
  for await (const row of measureFleet(count, keep)) report(row);
}

if (!options.quick) await rename(PARTIAL, RESULTS);
console.log(`\n${origin.machine}\ncommit ${origin.commit}, ${origin.takenAt}\n`);
console.table(rows, [...columns]);
if (growth) console.table(growth);
if (options.quick) console.log('A quick run: bench/results/latest.json is as it was.');
