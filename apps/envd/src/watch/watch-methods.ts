import { randomBytes } from 'node:crypto';
import { stat, statfs } from 'node:fs/promises';
import { create } from '@bufbuild/protobuf';
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from '@connectrpc/connect';
import { WrennError } from '@wrenn/protocol/errors';
import {
  EventType,
  type Filesystem,
  type FilesystemEvent,
  FilesystemEventSchema,
  WatchDirResponseSchema,
} from '@wrenn/protocol/gen/filesystem/filesystem_pb';
import { fileError } from '../errors.ts';
import { entryInfoIfThere } from '../filesystem/entry-info.ts';
import { keepaliveIntervalMs } from '../keepalive.ts';
import { ChangeQueue } from './change-queue.ts';
import { type Change, type ChangeKind, WatchHub } from './watch-hub.ts';

const EVENT_TYPES: Record<ChangeKind, EventType> = {
  create: EventType.CREATE,
  write: EventType.WRITE,
  remove: EventType.REMOVE,
  rename: EventType.RENAME,
  chmod: EventType.CHMOD,
};

/** Watches that clients poll stay until they are removed; a client that forgets them must not fill the guest. */
const MAX_POLLED_WATCHES = 1024;

/** Magic numbers of NFS, CIFS, SMB, SMB2 and FUSE (statfs(2)), where changes made elsewhere raise no events. */
const NETWORK_FILE_SYSTEMS = new Set([0x6969, 0xff534d42, 0x517b, 0xfe534d42, 0x65735546]);

interface WatchRequest {
  readonly path: string;
  readonly recursive: boolean;
  readonly includeEntry: boolean;
  readonly allowNetworkMounts: boolean;
}

type WatchMethods = Pick<
  ServiceImpl<typeof Filesystem>,
  'watchDir' | 'createWatcher' | 'getWatcherEvents' | 'removeWatcher'
>;

/** The four watch calls. */
export function createWatchMethods(locate: (path: string, context: HandlerContext) => { path: string }): WatchMethods {
  const hub = new WatchHub();
  const polled = new Map<string, { queue: ChangeQueue; includeEntry: boolean }>();

  async function startWatch(request: WatchRequest, context: HandlerContext): Promise<ChangeQueue> {
    const { path } = locate(request.path, context);
    await checkWatchable(path, request.allowNetworkMounts);
    const queue = new ChangeQueue();
    queue.stop = hub.watch(path, request.recursive, queue);
    return queue;
  }

  function findPolled(id: string) {
    const watcher = polled.get(id);
    if (watcher === undefined) throw new WrennError('not_found', { what: `Watcher ${id}` });
    return watcher;
  }

  return {
    async *watchDir(request, context) {
      const queue = await startWatch(request, context);
      const keepaliveMs = keepaliveIntervalMs(context.requestHeader);
      context.signal.addEventListener('abort', queue.stop, { once: true });
      try {
        yield create(WatchDirResponseSchema, { event: { case: 'start', value: {} } });
        for (;;) {
          const outcome = await queue.changed(keepaliveMs, context.signal);
          if (outcome === 'aborted') throw ConnectError.from(context.signal.reason, Code.Canceled);
          if (outcome === 'timeout') {
            yield create(WatchDirResponseSchema, { event: { case: 'keepalive', value: {} } });
          }
          for (const change of queue.take()) {
            const event = await toEvent(change, request.includeEntry);
            yield create(WatchDirResponseSchema, { event: { case: 'filesystem', value: event } });
          }
        }
      } finally {
        context.signal.removeEventListener('abort', queue.stop);
        queue.stop();
      }
    },

    async createWatcher(request, context) {
      if (polled.size >= MAX_POLLED_WATCHES) {
        throw new WrennError('guest_limit_reached', { problem: `${polled.size} watchers are open` });
      }
      const queue = await startWatch(request, context);
      const watcherId = `w${randomBytes(12).toString('hex')}`;
      polled.set(watcherId, { queue, includeEntry: request.includeEntry });
      return { watcherId };
    },

    async getWatcherEvents(request) {
      const { queue, includeEntry } = findPolled(request.watcherId);
      hub.flush();
      return { events: await Promise.all(queue.take().map((change) => toEvent(change, includeEntry))) };
    },

    removeWatcher(request) {
      findPolled(request.watcherId).queue.stop();
      polled.delete(request.watcherId);
      return {};
    },
  };
}

async function checkWatchable(path: string, allowNetworkMounts: boolean): Promise<void> {
  let directory: boolean;
  let fileSystem: number;
  try {
    directory = (await stat(path)).isDirectory();
    fileSystem = (await statfs(path)).type;
  } catch (error) {
    throw fileError(error, path, 'watch');
  }
  if (!directory) throw new WrennError('wrong_file_type', { path, actual: 'a file', expected: 'a directory' });
  if (!allowNetworkMounts && NETWORK_FILE_SYSTEMS.has(fileSystem)) {
    throw new WrennError('invalid_request', { problem: `${path} is on a network file system, which tells no events` });
  }
}

/** What was removed or renamed is no longer at its path; whatever is there now is not what the event is about. */
async function toEvent({ kind, name, path }: Change, includeEntry: boolean): Promise<FilesystemEvent> {
  const carriesEntry = includeEntry && kind !== 'remove' && kind !== 'rename';
  const entry = carriesEntry ? await entryInfoIfThere(path) : undefined;
  return create(FilesystemEventSchema, { name, type: EVENT_TYPES[kind], ...(entry ? { entry } : {}) });
}
