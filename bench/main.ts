import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { wrennDir } from '@wrenn/config/wrenn-dir';
import { readImage } from '@wrenn/guest-image/catalog';
import { claimOwner } from '@wrenn/host-agent/network/claims';
import { SlotPool } from '@wrenn/host-agent/network/slot-pool';
import { chooseHypervisor } from '@wrenn/hypervisor/choose-hypervisor';
import { HOST_ROOT, readHostFacts } from '@wrenn/hypervisor/host-facts';
import { MACHINES, type QemuProgram } from '@wrenn/hypervisor/qemu/machine';
import { pino } from 'pino';
import { startPlatform } from '../tests/e2e/support/platform.ts';
import { type FloorSource, restoreFloorVm, settleFloorVm } from './floor-vm.ts';
import { measureExec, measureFiles } from './guest-calls.ts';
import { provenance } from './machine.ts';
import { type Measurement, summarise, timed } from './measurement.ts';
import { measureMemory } from './memory.ts';
import { createCapsule, destroyCapsule } from './platform-calls.ts';
import { measureColdBoot, measureCreate } from './start-up.ts';

const RESULTS = join(import.meta.dirname, 'results', 'latest.json');

const rows: Measurement[] = [];
const columns = ['name', 'unit', 'n', 'p50', 'p95', 'p99', 'floorP50', 'ratio'] as const;
function report(...measured: Measurement[]): void {
  for (const row of measured) {
    rows.push(row);
    const floor = row.floorP50 === null ? '' : `  (floor ${row.floorP50}, ratio ${row.ratio})`;
    console.log(`  ${row.name}: p50 ${row.p50} ${row.unit}, p95 ${row.p95}${floor}`);
  }
}

const program = await qemuProgram();
console.log('starting a platform');
await using platform = await startPlatform({ env: { LOG_LEVEL: 'warn' } });
await using slots = new SlotPool({ owner: claimOwner(platform.dir), size: () => 0, log: pino({ level: 'warn' }) });
const slot = await slots.acquire(AbortSignal.timeout(30_000));
try {
  const floor: FloorSource = { program, dir: platform.dir, slot };
  let first = '';
  const firstMs = await timed(async () => {
    first = await createCapsule(platform);
  });
  report(summarise('first start of a new shape (boot and snapshot)', 'ms', [firstMs]));

  const image = await readImage(wrennDir(platform.dir), 'minimal');
  if (!image) throw new Error('there is no image named minimal');
  report(await measureColdBoot(floor, image.rootfsPath));
  report(...(await measureCreate(platform, floor, image.manifest.defaultUser)));
  {
    await using vm = await restoreFloorVm(floor);
    const envd = await settleFloorVm(vm, image.manifest.defaultUser);
    report(await measureExec(platform, first, envd));
    report(...(await measureFiles(platform, first, vm, envd)));
  }
  await destroyCapsule(platform, first);
  report(await measureMemory(platform));
} finally {
  await slots.release(slot);
}

const origin = await provenance(program.identity);
await mkdir(join(RESULTS, '..'), { recursive: true });
await writeFile(
  `${RESULTS}.partial`,
  `${JSON.stringify(
    rows.map((row) => ({ ...row, ...origin })),
    undefined,
    2,
  )}\n`,
);
await rename(`${RESULTS}.partial`, RESULTS);
console.log(`\n${origin.machine}\ncommit ${origin.commit}, ${origin.takenAt}\n`);
console.table(rows, [...columns]);

/** The same QEMU in the same way as the platform's agent, found on PATH. */
async function qemuProgram(): Promise<QemuProgram> {
  const { identity } = (await chooseHypervisor()).hypervisor;
  const { kind, arch } = identity;
  if (kind !== 'qemu' || (arch !== 'x86_64' && arch !== 'aarch64')) throw new Error(`no floor for ${kind} on ${arch}`);
  const { tscKhz } = await readHostFacts(HOST_ROOT);
  return { path: MACHINES[arch].program, identity: { ...identity, kind, arch }, tscKhz };
}
