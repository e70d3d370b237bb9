/** How much of a host capsules may take, and how those that sleep count. All numbers are ratios. */
export interface PlacementSettings {
  /** Shares of a host that are its own. */
  readonly reservedMemory: number;
  readonly reservedCpu: number;
  readonly reservedDisk: number;
  /** How often what is left may be given away. CPU only counts in the score: it refuses nobody. */
  readonly memoryOvercommit: number;
  readonly cpuOvercommit: number;
  readonly diskOvercommit: number;
  /** What a sleeping capsule counts of what it has while it runs. */
  readonly asleepMemory: number;
  readonly asleepDisk: number;
  /** Share of its disk that must really be free for a host to take another capsule. */
  readonly minDiskFree: number;
  /** By how much of itself a host must be emptier than others when it has to fetch what the capsule is made of. */
  readonly fetchPenalty: number;
}

export const DEFAULT_PLACEMENT: PlacementSettings = {
  reservedMemory: 0.1,
  reservedCpu: 0.1,
  reservedDisk: 0.1,
  memoryOvercommit: 1,
  cpuOvercommit: 1.5,
  diskOvercommit: 2,
  asleepMemory: 1 / 2,
  asleepDisk: 2 / 3,
  minDiskFree: 0.05,
  fetchPenalty: 0.05,
};
