import { timestampDate, timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { ReadStatsRequest } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { VmSampler } from '../metrics/vm-sampler.ts';
import { checkedId } from './request-fields.ts';

/** The rest is asked for by `since`. */
const MAX_SAMPLES = 20_000;

/** What was measured, the oldest first. */
export function readStats(sampler: Pick<VmSampler, 'readSamples'>, { id, since }: ReadStatsRequest) {
  const samples = sampler.readSamples(id ? checkedId(id) : undefined, since && timestampDate(since));
  // All that was measured at one moment, or none of it: otherwise `since` would leave some out.
  const end = samples[MAX_SAMPLES]?.at.getTime();
  const page = end === undefined ? samples : samples.filter(({ at }) => at.getTime() < end);
  return {
    samples: page.map((sample) => ({
      id: sample.id,
      at: timestampFromDate(sample.at),
      countedFrom: timestampFromDate(sample.countedFrom),
      cpuPct: sample.cpuPct,
      memoryBytes: BigInt(sample.memoryBytes),
      diskBytes: BigInt(sample.diskBytes),
      netRxBytes: BigInt(sample.netRxBytes),
      netTxBytes: BigInt(sample.netTxBytes),
    })),
  };
}
