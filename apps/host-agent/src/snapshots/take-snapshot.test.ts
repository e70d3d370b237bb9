import { expect, it } from 'vitest';
import type { VmRecord } from '../journal/vm-record.ts';
import { sharedSums } from './take-snapshot.ts';

it('knows nothing of a layer that was merged, whose name the next one has again', () => {
  const sum = { sizeBytes: 1, mtimeMs: 1, sha256: 'ab' };
  const layerSums = { 'blank.qcow2': sum, 'layers/0.raw': sum, 'layers/1.qcow2': sum, 'layers/2.qcow2': sum };
  const record = { layers: ['0.raw', '1.qcow2'], layerSums } as Partial<VmRecord> as VmRecord;
  expect(Object.keys(sharedSums(record))).toEqual(['blank.qcow2', 'layers/0.raw', 'layers/1.qcow2']);
});
