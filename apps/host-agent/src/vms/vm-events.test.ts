import { describe, expect, it } from 'vitest';
import { VmEvents } from './vm-events.ts';

describe('VmEvents', () => {
  it('gives a slow watcher the latest state of each VM only', async () => {
    const events = new VmEvents<string>();
    const changes = events.watch(new AbortController().signal)[Symbol.asyncIterator]();
    for (let i = 0; i < 1000; i++) events.publish({ id: 'a', vm: `state ${i}` });
    events.publish({ id: 'b', vm: undefined });
    expect((await changes.next()).value).toEqual([
      { id: 'a', vm: 'state 999' },
      { id: 'b', vm: undefined },
    ]);
  });

  it('wakes a watcher that waits, and ends with its signal', async () => {
    const events = new VmEvents<string>();
    const stop = new AbortController();
    const changes = events.watch(stop.signal)[Symbol.asyncIterator]();
    const first = changes.next();
    events.publish({ id: 'a', vm: 'new' });
    expect((await first).value).toEqual([{ id: 'a', vm: 'new' }]);
    const second = changes.next();
    stop.abort();
    expect((await second).done).toBe(true);
    events.publish({ id: 'a', vm: 'late' });
    expect((await changes.next()).done).toBe(true);
  });
});
