import { Writable } from 'node:stream';
import { pino } from 'pino';
import { afterEach, expect, it, vi } from 'vitest';
import { StateLog } from './state-log.ts';

afterEach(() => {
  vi.useRealTimers();
});

it('says what is wrong once an hour, at once when something else is, and that all is well only after it was not', () => {
  vi.useFakeTimers({ toFake: ['performance'] });
  const said: string[] = [];
  const write = (chunk: Buffer, _encoding: BufferEncoding, done: () => void) => {
    said.push(JSON.parse(chunk.toString()).msg);
    done();
  };
  const state = new StateLog(pino(new Writable({ write })));
  const minutes = (count: number) => vi.advanceTimersByTime(count * 60_000);
  state.isWell({}, 'well');
  state.is('away', 'warn', {}, 'away');
  minutes(59);
  state.is('away', 'warn', {}, 'away');
  expect(said.splice(0)).toEqual(['away']);
  minutes(2);
  state.is('away', 'warn', {}, 'away');
  state.is('refused', 'error', {}, 'refused');
  state.isWell({}, 'well');
  state.isWell({}, 'well');
  expect(said).toEqual(['away', 'refused', 'well']);
});
