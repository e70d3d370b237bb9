import type { Capsule } from '../database/schema.ts';
import type { Room } from './host-room.ts';
import type { PlacementSettings } from './placement-settings.ts';

/** What a capsule takes of its host once it runs, beyond what it takes asleep. */
export function roomToWake(
  { asleepMemory, asleepDisk }: PlacementSettings,
  { status, memoryMb, diskMb }: Pick<Capsule, 'status' | 'memoryMb' | 'diskMb'>,
): Room {
  // One that failed counts nothing until it runs again.
  const counted = status === 'paused' ? { memory: asleepMemory, disk: asleepDisk } : { memory: 0, disk: 0 };
  return { memoryMb: memoryMb * (1 - counted.memory), diskMb: (diskMb ?? 0) * (1 - counted.disk) };
}
