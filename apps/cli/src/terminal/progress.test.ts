import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { clearProgress, startProgress, transferDetail } from './progress.ts';

function recorder(isTTY: boolean) {
  const written: string[] = [];
  return { written, stream: { isTTY, columns: 40, write: (text: string) => written.push(text) } };
}

describe('startProgress', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it('stays silent for what takes less than a second', () => {
    const { written, stream } = recorder(true);
    const progress = startProgress('creating', stream);
    vi.advanceTimersByTime(900);
    progress[Symbol.dispose]();
    expect(written).toEqual([]);
  });

  it('redraws one line that fits the terminal, and removes it', () => {
    const { written, stream } = recorder(true);
    const progress = startProgress('creating', stream);
    progress.update('x'.repeat(100));
    vi.advanceTimersByTime(1400);
    progress[Symbol.dispose]();
    expect(written.at(-2)).toBe(`\r\u001b[Kcreating … 1.4 s  ${'x'.repeat(20)}…`);
    expect(written.at(-1)).toBe('\r\u001b[K');
  });

  it('shows the newest of several, and makes room for a line between', () => {
    const { written, stream } = recorder(true);
    using _older = startProgress('older', stream);
    {
      using _newer = startProgress('newer', stream);
      vi.advanceTimersByTime(1000);
      expect(written).toEqual(['\r\u001b[Knewer … 1.0 s']);
      clearProgress();
      expect(written.at(-1)).toBe('\r\u001b[K');
      written.length = 0;
    }
    vi.advanceTimersByTime(200);
    expect(written).toEqual(['\r\u001b[Kolder … 1.2 s']);
  });

  it('prints few whole lines where there is no terminal', () => {
    const { written, stream } = recorder(false);
    const progress = startProgress('creating', stream);
    vi.advanceTimersByTime(20_000);
    progress[Symbol.dispose]();
    expect(written).toEqual(['creating … 1.0 s\n', 'creating … 16.0 s\n']);
  });
});

describe('transferDetail', () => {
  it('shows bar, speed and time left', () => {
    expect(transferDetail(25 * 1024 ** 2, 50 * 1024 ** 2, 5000)).toBe(
      '[############............] 50%  25.0 MiB of 50.0 MiB  5.00 MiB/s  5.0 s left',
    );
  });

  it('has no bar without a size', () => {
    expect(transferDetail(2048, undefined, 1000)).toBe('2.00 KiB  2.00 KiB/s');
  });

  it('is full for an empty file', () => {
    expect(transferDetail(0, 0, 10)).toMatch(/^\[#{24}\] 100%/);
  });
});
