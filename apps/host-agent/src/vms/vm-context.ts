import type { WrennDir } from '@wrenn/config/wrenn-dir';
import type { Logger } from 'pino';
import type { Journal } from '../journal/journal.ts';
import type { ObjectStore } from '../objects/object-store.ts';
import type { PooledVm } from '../pool/pooled-vm.ts';
import type { WarmPool } from '../pool/warm-pool.ts';
import type { SnapshotStore } from '../snapshots/snapshot-store.ts';
import type { ImageExchange } from '../templates/image-exchange.ts';
import type { VmResources } from '../templates/make-snapshot.ts';
import type { TemplateStore } from '../templates/template-store.ts';
import type { KeyedQueue } from './keyed-queue.ts';
import type { VmRegistry } from './vm-registry.ts';

/** What the verbs work with. */
export interface VmContext {
  readonly dir: WrennDir;
  readonly journal: Journal;
  readonly resources: VmResources;
  readonly templates: TemplateStore;
  readonly images: ImageExchange;
  readonly snapshots: SnapshotStore;
  readonly objects: ObjectStore;
  /** Makes room on the disk for what comes from other hosts. @throws WrennError host_disk_full */
  readonly makeRoomForFetched: (bytes: number) => Promise<void>;
  readonly registry: VmRegistry;
  readonly pool: WarmPool<PooledVm>;
  /** Gives up a VM of the pool; false when there is none. */
  readonly makeRoom: () => Promise<boolean>;
  /** The verbs of one capsule run one after the other in it. */
  readonly queue: KeyedQueue;
  readonly agentVersion: string;
  readonly log: Logger;
}
