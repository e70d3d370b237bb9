import { type Timestamp, timestampDate, timestampFromDate } from '@bufbuild/protobuf/wkt';
import { type CallOptions, type Client, Code, ConnectError } from '@connectrpc/connect';
import type { HostService } from '@wrenn/protocol/gen/wrenn/host/v1/host_pb';
import type { HostSample } from '../metrics/store-samples.ts';

export interface WantedStats {
  /** Of one VM; all unless told. */
  readonly id?: string | undefined;
  readonly since?: Date | undefined;
}

/** What a host has measured, in the form of its heartbeats. @throws ConnectError */
export async function readStats(
  client: Client<typeof HostService>,
  { id = '', since }: WantedStats,
  options: CallOptions,
): Promise<HostSample[]> {
  const request = { id, ...(since ? { since: timestampFromDate(since) } : {}) };
  try {
    const { samples } = await client.readStats(request, options);
    return samples.flatMap(({ id: vmId, at, countedFrom, cpuPct, ...bytes }) => {
      if (!at) return [];
      return [
        {
          ...{ id: vmId, at: toText(at), cpu_pct: cpuPct },
          ...(countedFrom ? { counted_from: toText(countedFrom) } : {}),
          memory_bytes: Number(bytes.memoryBytes),
          disk_bytes: Number(bytes.diskBytes),
          net_rx_bytes: Number(bytes.netRxBytes),
          net_tx_bytes: Number(bytes.netTxBytes),
        },
      ];
    });
  } catch (error) {
    if (error instanceof ConnectError && error.code === Code.Unimplemented) return [];
    throw error;
  }
}

function toText(at: Timestamp): string {
  return timestampDate(at).toISOString();
}
