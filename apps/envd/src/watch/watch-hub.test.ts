import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { IN, Inotify, type InotifyEvent } from './inotify.ts';
import { WatchHub } from './watch-hub.ts';

let root: string;
let told: string[];
let stop: (() => void) | undefined;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'wrenn-watch-hub-'));
  told = [];
});

afterEach(() => {
  stop?.();
  rmSync(root, { recursive: true });
});

function watch(hub: WatchHub): void {
  stop = hub.watch(root, true, {
    change: ({ kind, name }) => told.push(`${kind} ${name}`),
    fail: (error) => told.push(error.code),
  });
}

/** A hub whose every new watch is followed at once by what another program does in that directory. */
function hubBeside(program: (directory: string) => void): WatchHub {
  return new WatchHub((...on) => {
    const inotify = new Inotify(...on);
    return {
      add: (path) => {
        const watch = inotify.add(path);
        program(path);
        return watch;
      },
      remove: (watch) => inotify.remove(watch),
      drain: () => inotify.drain(),
      close: () => inotify.close(),
    };
  });
}

it('tells what is put into a new directory between its watch and its scan once', () => {
  const hub = hubBeside((directory) => {
    if (directory !== join(root, 'new')) return;
    mkdirSync(join(directory, 'a/b'), { recursive: true });
    writeFileSync(join(directory, 'a/b/file'), '');
  });
  watch(hub);
  mkdirSync(join(root, 'new'));
  for (let round = 0; round < 3; round++) hub.flush();
  expect(told).toEqual(['create new', 'create new/a', 'create new/a/b', 'create new/a/b/file']);
});

it('goes on to watch what was seen twice, and tells what comes again under a name that was scanned', () => {
  const hub = hubBeside((directory) => {
    if (directory === join(root, 'new')) mkdirSync(join(directory, 'a'));
  });
  watch(hub);
  mkdirSync(join(root, 'new'));
  hub.flush();
  rmSync(join(root, 'new/a'), { recursive: true });
  mkdirSync(join(root, 'new/a'));
  hub.flush();
  writeFileSync(join(root, 'new/a/file'), '');
  for (let round = 0; round < 3; round++) hub.flush();
  expect(told).toEqual(['create new', 'create new/a', 'remove new/a', 'create new/a', 'create new/a/file']);
});

it('knows an upload whose rename is read in two halves', () => {
  let read: (events: InotifyEvent[]) => void = () => {};
  const hub = new WatchHub((onEvents) => {
    read = onEvents;
    return { add: () => 1, remove: () => {}, drain: () => {}, close: () => {} };
  });
  watch(hub);
  for (const [cookie, upload] of ['.wrenn-upload-new-1', '.wrenn-upload-old-2'].entries()) {
    read([{ watch: 1, mask: IN.MOVED_FROM, cookie, name: upload }]);
    read([{ watch: 1, mask: IN.MOVED_TO, cookie, name: `file${cookie}` }]);
  }
  read([{ watch: 1, mask: IN.MOVED_TO, cookie: 0, name: 'moved here' }]);
  expect(told).toEqual(['create file0', 'write file0', 'write file1', 'create moved here']);
});
