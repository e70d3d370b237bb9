import { type Dirent, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { WrennError } from '@wrenn/protocol/errors';
import { errnoOf, fileError } from '../errors.ts';
import { isUploadName, uploadReplaces } from '../files/replace-file.ts';
import { IN, Inotify, type InotifyEvent } from './inotify.ts';

export type ChangeKind = 'create' | 'write' | 'remove' | 'rename' | 'chmod';

/** A change below a watched directory. */
export interface Change {
  readonly kind: ChangeKind;
  /** Relative to the watched directory; `.` is the directory itself. */
  readonly name: string;
  readonly path: string;
}

/** Whoever watches: gets changes in order, and at most one failure, after which nothing comes. */
export interface WatchListener {
  change(change: Change): void;
  fail(error: WrennError): void;
}

/** One directory that somebody watches, with its subdirectories where that was asked for. */
interface Tree {
  readonly root: string;
  readonly recursive: boolean;
  readonly listener: WatchListener;
  /** Relative path of each watched directory ('' is the root) and its watch. */
  readonly directories: Map<string, number>;
  /** Entries that were told when their new directory was scanned; until the queue is empty, their creation may come. */
  readonly scanned: Set<string>;
}

type Queue = Pick<Inotify, 'add' | 'remove' | 'drain' | 'close'>;
type OpenQueue = (...on: ConstructorParameters<typeof Inotify>) => Queue;

/** All watches share one inotify instance, so a directory that several of them watch has one kernel watch. */
export class WatchHub {
  #inotify: Queue | undefined;
  readonly #open: OpenQueue;
  readonly #trees = new Set<Tree>();
  /** Who is interested in a kernel watch. */
  readonly #watches = new Map<number, Map<Tree, string>>();
  /** Names of uploads whose rename has told its first half only, by the cookie of both. */
  readonly #uploadMoves = new Map<number, string>();

  constructor(open: OpenQueue = (...on) => new Inotify(...on)) {
    this.#open = open;
  }

  /** Starts a watch. Changes from now on reach the listener. Returns what stops it. */
  watch(root: string, recursive: boolean, listener: WatchListener): () => void {
    const tree: Tree = { root, recursive, listener, directories: new Map(), scanned: new Set() };
    this.#inotify ??= this.#open(
      (events) => this.#dispatch(events),
      () => this.#allTold(),
    );
    this.#trees.add(tree);
    try {
      this.#addDirectory(tree, '', false);
    } catch (error) {
      this.#stop(tree);
      throw watchError(error, root);
    }
    return () => this.#stop(tree);
  }

  /** Takes what waits in the kernel's queue now, for those who ask and do not wait for the signal. */
  flush(): void {
    this.#inotify?.drain();
  }

  #stop(tree: Tree): void {
    if (!this.#trees.delete(tree)) return;
    for (const [directory] of [...tree.directories]) this.#removeDirectory(tree, directory);
    if (this.#trees.size === 0) {
      this.#inotify?.close();
      this.#inotify = undefined;
      this.#watches.clear();
      this.#uploadMoves.clear();
    }
  }

  /**
   * @param announce tell what is in the directory already: it is new, and what was put into it before its watch began
   * would otherwise be missed
   */
  #addDirectory(tree: Tree, directory: string, announce: boolean): void {
    const path = join(tree.root, directory);
    const watch = this.#inotify?.add(path);
    if (watch === undefined) return;
    tree.directories.set(directory, watch);
    const interested = this.#watches.get(watch) ?? new Map<Tree, string>();
    interested.set(tree, directory);
    this.#watches.set(watch, interested);
    if (!tree.recursive) return;
    for (const entry of entriesOf(path)) {
      if (isUploadName(entry.name)) continue;
      const name = join(directory, entry.name);
      if (announce) {
        tree.scanned.add(name);
        this.#tell(tree, 'create', name);
        if (entry.isFile() && hasContent(join(tree.root, name))) this.#tell(tree, 'write', name);
      }
      if (entry.isDirectory()) this.#addIfThere(tree, name, announce);
    }
  }

  #addIfThere(tree: Tree, directory: string, announce: boolean): void {
    try {
      this.#addDirectory(tree, directory, announce);
    } catch (error) {
      // Gone again, or replaced by a file: its own events say so.
      if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTDIR') throw error;
    }
  }

  #removeDirectory(tree: Tree, directory: string): void {
    const watch = tree.directories.get(directory);
    if (watch === undefined) return;
    tree.directories.delete(directory);
    const interested = this.#watches.get(watch);
    // A directory that was moved away and back may have given its watch to another name already.
    if (interested?.get(tree) === directory) interested.delete(tree);
    if (interested?.size !== 0) return;
    this.#watches.delete(watch);
    this.#inotify?.remove(watch);
  }

  #removeSubtree(tree: Tree, directory: string): void {
    for (const [candidate] of [...tree.directories]) {
      if (candidate === directory || candidate.startsWith(`${directory}/`)) this.#removeDirectory(tree, candidate);
    }
  }

  #dispatch(events: readonly InotifyEvent[]): void {
    for (const event of events) {
      if (event.mask & IN.Q_OVERFLOW) {
        const error = new WrennError('events_lost', { problem: 'the kernel queue of file events overflowed' });
        for (const tree of [...this.#trees]) this.#fail(tree, error);
        return;
      }
      if (event.mask & IN.MOVED_FROM && isUploadName(event.name)) this.#uploadMoves.set(event.cookie, event.name);
      for (const [tree, directory] of [...(this.#watches.get(event.watch) ?? [])]) {
        try {
          this.#handle(tree, directory, event);
        } catch (error) {
          this.#fail(tree, watchError(error, join(tree.root, directory)));
        }
      }
      if (event.mask & IN.MOVED_TO) this.#uploadMoves.delete(event.cookie);
      if (event.mask & IN.IGNORED) this.#forgetWatch(event.watch);
    }
  }

  #allTold(): void {
    for (const tree of this.#trees) tree.scanned.clear();
  }

  #handle(tree: Tree, directory: string, event: InotifyEvent): void {
    const { mask } = event;
    if (event.name === '') {
      // The parent's watch tells the same of every directory but the root.
      if (directory !== '') return;
      if (mask & (IN.DELETE_SELF | IN.UNMOUNT)) this.#tell(tree, 'remove', '.');
      if (mask & IN.MOVE_SELF) this.#tell(tree, 'rename', '.');
      if (mask & IN.ATTRIB && !(mask & IN.DELETE_SELF)) this.#tell(tree, 'chmod', '.');
      return;
    }
    if (isUploadName(event.name)) return;
    const name = join(directory, event.name);
    const isDirectory = (mask & IN.ISDIR) !== 0;
    if (mask & (IN.CREATE | IN.MOVED_TO)) this.#appeared(tree, name, event);
    if (mask & IN.ATTRIB) this.#tell(tree, 'chmod', name);
    if (mask & IN.MODIFY) this.#tell(tree, 'write', name);
    if (mask & (IN.DELETE | IN.MOVED_FROM)) {
      tree.scanned.delete(name);
      if (isDirectory) this.#removeSubtree(tree, name);
      this.#tell(tree, mask & IN.DELETE ? 'remove' : 'rename', name);
    }
  }

  #appeared(tree: Tree, name: string, { mask, cookie }: InotifyEvent): void {
    const scanned = tree.scanned.delete(name);
    const upload = mask & IN.MOVED_TO ? this.#uploadMoves.get(cookie) : undefined;
    if (upload !== undefined) {
      // An upload becomes visible by a rename; for those who watch it is the writing of a file.
      if (!uploadReplaces(upload) && !scanned) this.#tell(tree, 'create', name);
      this.#tell(tree, 'write', name);
      return;
    }
    // The scan has told and watched it. What is moved here is told anyway: it may have replaced what the scan saw.
    if (scanned && mask & IN.CREATE) return;
    this.#tell(tree, 'create', name);
    if (tree.recursive && mask & IN.ISDIR) {
      this.#removeSubtree(tree, name);
      this.#addIfThere(tree, name, true);
    }
  }

  #tell(tree: Tree, kind: ChangeKind, name: string): void {
    if (this.#trees.has(tree))
      tree.listener.change({ kind, name, path: name === '.' ? tree.root : join(tree.root, name) });
  }

  #fail(tree: Tree, error: WrennError): void {
    this.#stop(tree);
    tree.listener.fail(error);
  }

  #forgetWatch(watch: number): void {
    for (const [tree, directory] of this.#watches.get(watch) ?? []) {
      if (tree.directories.get(directory) === watch) tree.directories.delete(directory);
    }
    this.#watches.delete(watch);
  }
}

function entriesOf(path: string): Dirent[] {
  return readdirSync(path, { withFileTypes: true });
}

function hasContent(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0;
}

function watchError(error: unknown, path: string): WrennError {
  if (errnoOf(error) === 'ENOSPC') {
    return new WrennError(
      'guest_limit_reached',
      { problem: 'no more directories can be watched (fs.inotify.max_user_watches)' },
      { cause: error },
    );
  }
  if (errnoOf(error) === 'EMFILE') {
    return new WrennError('guest_limit_reached', { problem: 'too many inotify instances are open' }, { cause: error });
  }
  return fileError(error, path, 'watch');
}
