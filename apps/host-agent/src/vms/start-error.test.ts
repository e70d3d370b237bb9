import { WrennError } from '@wrenn/protocol/errors';
import { describe, expect, it } from 'vitest';
import { SnapshotRefusedError, startError } from './start-vm.ts';

const running = new AbortController().signal;
const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
const refused = new WrennError('vm_start_failed', { problem: 'the hypervisor ended' }, { cause: full });

describe('startError', () => {
  it('is host_disk_full whoever met the full disk', () => {
    for (const error of [full, refused, new SnapshotRefusedError('refused', { cause: refused })]) {
      expect(startError(error, running)).toMatchObject({ code: 'host_disk_full' });
    }
  });

  it("is the hypervisor's own where it has one, and tells nothing inner otherwise", () => {
    const own = new WrennError('vm_start_failed', { problem: 'the hypervisor ended' });
    expect(startError(new SnapshotRefusedError('refused', { cause: own }), running)).toBe(own);
    const hidden = startError(new Error('/root/secret'), running);
    expect(hidden).toMatchObject({ code: 'vm_start_failed', message: expect.not.stringContaining('secret') });
  });

  it("is the caller's own reason when the caller left", () => {
    const left = new Error('left');
    expect(startError(new Error('other'), AbortSignal.abort(left))).toBe(left);
  });
});
