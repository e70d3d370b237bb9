import { describe, expect, it } from 'vitest';
import { explainFailure } from './build-session.ts';
import { CommandFailedError } from './command.ts';

describe('explainFailure', () => {
  it('knows a full disk, whoever meets it', () => {
    const fromNode = Object.assign(new Error('write failed'), { code: 'ENOSPC' });
    const fromTool = new CommandFailedError('tar', 'ended with 2', ['tar: x: Cannot write: No space left on device']);
    for (const error of [fromNode, fromTool]) {
      expect(explainFailure(error, 'kernel')).toMatchObject({ code: 'host_disk_full', cause: error });
    }
  });

  it('names the step and what the program said of anything else', () => {
    const error = new CommandFailedError('dpkg-deb', 'ended with 2', ['dpkg-deb: error: not an archive']);
    expect(explainFailure(error, 'kernel')).toMatchObject({
      code: 'image_build_failed',
      message: 'The guest image could not be built (kernel): dpkg-deb ended with 2: dpkg-deb: error: not an archive',
    });
  });
});
